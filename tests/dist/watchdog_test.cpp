// Ranks that end before their time, as processes of their own.
#include "dist/watchdog.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <functional>
#include <sstream>
#include <stdexcept>
#include <vector>

#include "../file_testing.h"
#include "dist/process_group.h"

namespace sigtrain {
namespace {

using testing::HasSubstr;

constexpr WatchdogOptions kQuick{
    .heartbeat = 0.1, .silence = 3.0, .grace = 1.0, .connect = 20.0, .answer = 0.5};
constexpr int kEndedWell = 10, kKnewOfFailure = 11;

void pause_for(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

class WatchdogTest : public testing::Test {
 protected:
  ~WatchdogTest() override {
    for (const pid_t rank : ranks_) {
      ::kill(rank, SIGKILL);
      ::waitpid(rank, nullptr, 0);
    }
  }

  /// Starts `count` ranks that do `work` once all are connected; its result is their exit code.
  void start(int count, const std::function<int(int rank, Watchdog&)>& work) {
    int pipes[8][2], connected[2];
    ASSERT_EQ(::pipe(connected), 0);
    for (int rank = 0; rank < count; ++rank) ASSERT_EQ(::pipe(pipes[rank]), 0);
    for (int rank = 0; rank < count; ++rank) {
      const pid_t id = ::fork();
      ASSERT_GE(id, 0);
      if (id > 0) {
        ranks_.push_back(id);
        continue;
      }
      // Rank 0's text reaches the others through the pipes.
      const auto broadcast = [&](const std::string& text) {
        char buffer[4096] = {};
        if (rank == 0) {
          for (int other = 1; other < count; ++other)
            if (::write(pipes[other][1], text.data(), text.size()) < 0) ::_exit(1);
          return text;
        }
        if (::read(pipes[rank][0], buffer, sizeof(buffer) - 1) <= 0) ::_exit(1);
        return reroute_ ? reroute_(buffer) : buffer;
      };
      int code = 1;
      {
        Watchdog watchdog(rank, count, broadcast, kQuick);
        if (::write(connected[1], "x", 1) != 1) ::_exit(1);
        code = work(rank, watchdog);
        // As a program does that ends because of a failure: without good order.
        if (code != kEndedWell) ::_exit(code);
        watchdog.leave();
      }
      ::_exit(code);
    }
    for (int rank = 0; rank < count; ++rank) {
      ::close(pipes[rank][0]);
      ::close(pipes[rank][1]);
    }
    ::close(connected[1]);
    for (int rank = 0; rank < count; ++rank) {
      char byte = 0;
      EXPECT_EQ(::read(connected[0], &byte, 1), 1) << "a rank did not connect";
    }
    ::close(connected[0]);
  }

  void send(int rank, int signal) { ::kill(ranks_[static_cast<size_t>(rank)], signal); }

  /// For another start(), once all ranks of the last one have ended.
  void forget_ranks() { ranks_.clear(); }

  /// The exit code of a rank, or minus the signal that ended it.
  int end_of(int rank) {
    int status = 0;
    const auto begin = std::chrono::steady_clock::now();
    while (::waitpid(ranks_[static_cast<size_t>(rank)], &status, WNOHANG) == 0) {
      if (std::chrono::steady_clock::now() - begin > std::chrono::seconds(30)) {
        ADD_FAILURE() << "rank " << rank << " did not end";
        return 0;
      }
      pause_for(0.01);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

  /// Changes what ranks are told of the places where rank 0 listens: its token, and addresses each
  /// with a port.
  std::function<std::string(const std::string&)> reroute_;

  /// Looks for a failure of `culprit` for `seconds`.
  static int look_for_failure(Watchdog& watchdog, const std::string& expected,
                              double seconds = 20.0) {
    for (double waited = 0.0; waited < seconds; waited += 0.01) {
      try {
        watchdog.check();
      } catch (const RankFailure& failure) {
        return std::string(failure.what()).find(expected) != std::string::npos ? kKnewOfFailure
                                                                               : 12;
      }
      pause_for(0.01);
    }
    return kEndedWell;
  }

 private:
  std::vector<pid_t> ranks_;
};

TEST_F(WatchdogTest, RanksMayLeave) {
  start(4, [](int rank, Watchdog& watchdog) {
    pause_for(0.1 * rank);
    watchdog.check();
    return kEndedWell;
  });
  for (int rank = 0; rank < 4; ++rank) EXPECT_EQ(end_of(rank), kEndedWell) << rank;
}

class WatchdogOfKilled : public WatchdogTest, public testing::WithParamInterface<int> {};

TEST_P(WatchdogOfKilled, IsKnownToEveryone) {
  const int victim = GetParam();
  start(4, [&](int rank, Watchdog& watchdog) {
    if (rank == victim) {
      pause_for(0.3);
      ::raise(SIGKILL);
    }
    return look_for_failure(watchdog, fmt::format("rank {} ended without a word", victim));
  });
  for (int rank = 0; rank < 4; ++rank)
    EXPECT_EQ(end_of(rank), rank == victim ? -SIGKILL : kKnewOfFailure) << rank;
}

INSTANTIATE_TEST_SUITE_P(OfFour, WatchdogOfKilled, testing::Values(0, 2));

class WatchdogOfFailed : public WatchdogTest, public testing::WithParamInterface<int> {};

TEST_P(WatchdogOfFailed, TellsWhy) {
  const int victim = GetParam();
  start(3, [&](int rank, Watchdog& watchdog) {
    if (rank == victim) {
      watchdog.report("the disk is full");
      return 1;
    }
    return look_for_failure(watchdog, fmt::format("rank {} failed: the disk is full", victim));
  });
  for (int rank = 0; rank < 3; ++rank)
    EXPECT_EQ(end_of(rank), rank == victim ? 1 : kKnewOfFailure) << rank;
}

INSTANTIATE_TEST_SUITE_P(OfThree, WatchdogOfFailed, testing::Values(0, 1));

TEST_F(WatchdogTest, RankZeroTellsBeforeItEnds) {
  constexpr int kRanks = 8;
  start(kRanks, [&](int rank, Watchdog& watchdog) {
    if (rank == 1) {
      watchdog.report("the disk is full");
      return 1;
    }
    if (rank > 0) return look_for_failure(watchdog, "rank 1 failed: the disk is full");
    try {
      while (true) watchdog.check();
    } catch (const RankFailure&) {
      return kKnewOfFailure;  // at once
    }
  });
  for (int rank = 0; rank < kRanks; ++rank)
    EXPECT_EQ(end_of(rank), rank == 1 ? 1 : kKnewOfFailure) << rank;
}

TEST_F(WatchdogTest, ARankThatGivesNoSignOfLifeIsLost) {
  start(3, [](int rank, Watchdog& watchdog) {
    return look_for_failure(watchdog, "rank 1 has given no sign of life for 3 seconds");
  });
  pause_for(0.3);
  send(1, SIGSTOP);
  EXPECT_EQ(end_of(0), kKnewOfFailure);
  EXPECT_EQ(end_of(2), kKnewOfFailure);
}

TEST_F(WatchdogTest, ARankThatIsSlowIsNot) {
  start(3, [](int rank, Watchdog& watchdog) { return look_for_failure(watchdog, "", 2.0); });
  pause_for(0.3);
  send(1, SIGSTOP);
  pause_for(1.0);
  send(1, SIGCONT);
  for (int rank = 0; rank < 3; ++rank) EXPECT_EQ(end_of(rank), kEndedWell) << rank;
}

// In one long call, for longer than silence is taken for death.
TEST_F(WatchdogTest, ARankWhoseProgramIsBusyIsWaitedFor) {
  start(3, [](int rank, Watchdog& watchdog) {
    if (rank < 2) pause_for(4.0);
    return look_for_failure(watchdog, "", rank < 2 ? 0.1 : 4.1);
  });
  for (int rank = 0; rank < 3; ++rank) EXPECT_EQ(end_of(rank), kEndedWell) << rank;
}

/// What happens to listen where a rank looks for rank 0, on this machine.
class Stranger {
 public:
  /// Sends back what it hears, if it `echoes`.
  explicit Stranger(bool echoes) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(address);
    auto* any = reinterpret_cast<sockaddr*>(&address);
    if (::bind(listener_, any, length) != 0 || ::listen(listener_, 8) != 0 ||
        ::getsockname(listener_, any, &length) != 0)
      throw std::runtime_error("cannot listen");
    port_ = ntohs(address.sin_port);
    if (!echoes) return;  // the kernel accepts
    echo_ = ::fork();
    if (echo_ == 0) ::alarm(60);  // should this program not get to end it
    while (echo_ == 0) {
      const int heard = ::accept(listener_, nullptr, nullptr);
      char buffer[256];
      ssize_t count = 0;
      while ((count = ::recv(heard, buffer, sizeof(buffer), 0)) > 0)
        if (::send(heard, buffer, static_cast<size_t>(count), MSG_NOSIGNAL) < 0) break;
      ::close(heard);
    }
  }
  ~Stranger() {
    if (echo_ > 0) {
      ::kill(echo_, SIGKILL);
      ::waitpid(echo_, nullptr, 0);
    }
    ::close(listener_);
  }
  Stranger(const Stranger&) = delete;
  Stranger& operator=(const Stranger&) = delete;
  /// Puts it in front of the places where rank 0 listens.
  std::string before(const std::string& where) const {
    const size_t token = where.find(' ');
    return fmt::format("{} 127.0.0.1 {}{}", where.substr(0, token), port_, where.substr(token));
  }

 private:
  int listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  uint16_t port_ = 0;
  pid_t echo_ = -1;
};

TEST_F(WatchdogTest, WhoDoesNotAnswerAsRankZeroIsPassedOver) {
  for (const bool echoes : {false, true}) {
    const Stranger stranger(echoes);
    reroute_ = [&](const std::string& where) { return stranger.before(where); };
    forget_ranks();
    start(2, [](int, Watchdog&) { return kEndedWell; });
    for (const int rank : {0, 1}) EXPECT_EQ(end_of(rank), kEndedWell) << rank << echoes;
  }
}

TEST_F(WatchdogTest, AStrangerAtRankZerosPortIsPassedOver) {
  // A connection that says nothing comes before the rank's own.
  reroute_ = [](const std::string& where) {
    std::istringstream text(where);
    std::string token, address;
    uint16_t port = 0;
    text >> token >> address >> port;
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int silent = ::socket(AF_INET, SOCK_STREAM, 0);
    if (::connect(silent, reinterpret_cast<sockaddr*>(&to), sizeof(to)) != 0) ::_exit(15);
    return where;
  };
  start(3, [](int, Watchdog&) { return kEndedWell; });
  for (const int rank : {0, 1, 2}) EXPECT_EQ(end_of(rank), kEndedWell) << rank;
}

TEST_F(WatchdogTest, RanksThatAreEarlyHearRankZeroWhileALateOneIsMissing) {
  int late[2];
  ASSERT_EQ(::pipe2(late, O_NONBLOCK), 0);
  ASSERT_EQ(::write(late[1], "x", 1), 1);
  reroute_ = [&](const std::string& where) {
    char byte = 0;
    if (::read(late[0], &byte, 1) == 1) pause_for(kQuick.silence + 1.0);
    return where;
  };
  start(3, [](int, Watchdog& watchdog) {
    watchdog.check();
    return kEndedWell;
  });
  for (const int rank : {0, 1, 2}) EXPECT_EQ(end_of(rank), kEndedWell) << rank;
  ::close(late[0]);
  ::close(late[1]);
}

TEST_F(WatchdogTest, RanksMeetByIpv6) {
  sockaddr_in6 loopback{};
  loopback.sin6_family = AF_INET6;
  loopback.sin6_addr = in6addr_loopback;
  const int socket = ::socket(AF_INET6, SOCK_STREAM, 0);
  const bool has_ipv6 =
      socket >= 0 && ::bind(socket, reinterpret_cast<sockaddr*>(&loopback), sizeof(loopback)) == 0;
  ::close(socket);
  if (!has_ipv6) GTEST_SKIP() << "this machine has no IPv6";
  reroute_ = [](const std::string& where) {
    return where.substr(0, where.find(' ')) + " ::1" + where.substr(where.rfind(' '));
  };
  start(3, [](int, Watchdog&) { return kEndedWell; });
  for (const int rank : {0, 1, 2}) EXPECT_EQ(end_of(rank), kEndedWell) << rank;
}

TEST_F(WatchdogTest, AStoppedRunGoesOn) {
  start(2, [](int, Watchdog& watchdog) { return look_for_failure(watchdog, "", 1.0); });
  pause_for(0.3);
  for (const int rank : {0, 1}) send(rank, SIGSTOP);
  pause_for(3.5);  // longer than silence is taken for death
  for (const int rank : {0, 1}) send(rank, SIGCONT);
  for (const int rank : {0, 1}) EXPECT_EQ(end_of(rank), kEndedWell) << rank;
}

TEST_F(WatchdogTest, EndsAProgramThatDoesNotEndItself) {
  start(2, [](int rank, Watchdog&) {
    if (rank == 1) ::raise(SIGKILL);
    pause_for(60.0);  // in a call that waits for rank 1
    return kEndedWell;
  });
  EXPECT_EQ(end_of(0), 1);
}

TEST_F(WatchdogTest, StopsWhatWaitsForTheFailedRank) {
  start(2, [](int rank, Watchdog& watchdog) {
    if (rank == 1) {
      pause_for(0.3);
      ::raise(SIGKILL);
    }
    std::atomic<bool> is_stopped{false};
    watchdog.watch([&] { is_stopped = true; }, {});
    while (!is_stopped) pause_for(0.01);
    // What was stopped may hold anything: that it was is known by then.
    return look_for_failure(watchdog, "rank 1", 0.0001);
  });
  EXPECT_EQ(end_of(0), kKnewOfFailure);
}

TEST_F(WatchdogTest, WhatIsTakenBackRunsNoMore) {
  start(2, [](int rank, Watchdog& watchdog) {
    if (rank == 1) {
      pause_for(1.0);
      ::raise(SIGKILL);
    }
    // Either may use what the caller destroys next.
    std::atomic<bool> has_begun{false}, has_ended{false};
    const auto work = [&] {
      has_begun = true;
      pause_for(0.3);
      has_ended = true;
    };
    watchdog.watch({}, [&] {
      work();
      return std::string();
    });
    while (!has_begun) pause_for(0.01);
    watchdog.watch({}, {});
    if (!has_ended) return 13;
    has_begun = has_ended = false;
    watchdog.watch(work, {});
    while (!has_begun) pause_for(0.01);
    watchdog.watch({}, {});
    return has_ended ? kKnewOfFailure : 14;
  });
  EXPECT_EQ(end_of(0), kKnewOfFailure);
}

TEST_F(WatchdogTest, WhatAProbeFindsIsThisRanksFailure) {
  start(2, [](int rank, Watchdog& watchdog) {
    if (rank == 1) watchdog.watch({}, [] { return std::string("a cable is loose"); });
    return look_for_failure(watchdog, "rank 1 failed: a cable is loose");
  });
  for (const int rank : {0, 1}) EXPECT_EQ(end_of(rank), kKnewOfFailure) << rank;
}

TEST_F(WatchdogTest, AProbeGivesWayToADeadRank) {
  start(3, [](int rank, Watchdog& watchdog) {
    if (rank == 1) watchdog.watch({}, [] { return std::string("a connection broke"); });
    if (rank == 2) {
      pause_for(1.0);
      ::raise(SIGKILL);
    }
    return look_for_failure(watchdog, "rank 2 ended without a word");
  });
  for (const int rank : {0, 1}) EXPECT_EQ(end_of(rank), kKnewOfFailure) << rank;
}

}  // namespace
}  // namespace sigtrain
