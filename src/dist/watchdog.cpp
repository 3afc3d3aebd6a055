#include "dist/watchdog.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <random>
#include <sstream>
#include <system_error>

#include "core/log.h"
#include "dist/process_group.h"

namespace sigtrain {
namespace {

constexpr double kProbePatience = 3.0;  // seconds
constexpr double kTellingTime = 2.0;    // seconds
constexpr size_t kLongestText = 1 << 16;

enum Kind : int32_t { hello = 1, heartbeat, failed, done };

/// What goes before the text of every message. All ranks run the same program, so bytes are as they
/// are in memory.
struct Header {
  uint64_t token;  // of the run: a stranger's connection is dropped
  int32_t kind;
  int32_t rank;  // whom the message is about
  uint32_t length;
  uint32_t unused = 0;
};

double now_seconds() {
  using Clock = std::chrono::steady_clock;
  return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
}

std::string system_reason() { return std::generic_category().message(errno); }

/// Gives up on a peer that takes nothing for a second: it is on its way out.
void send_bytes(int socket, const std::string& bytes) {
  for (size_t sent = 0; sent < bytes.size();) {
    const ssize_t count = ::send(socket, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return;
    sent += static_cast<size_t>(count);
  }
}

void set_up_socket(int socket) {
  const int on = 1;
  ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  const timeval second{1, 0};
  ::setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &second, sizeof(second));
}

/// Addresses of this machine that others may reach it by; the loopback last, for ranks on it.
std::vector<std::string> own_addresses() {
  std::vector<std::string> addresses;
  ifaddrs* all = nullptr;
  if (::getifaddrs(&all) == 0) {
    for (const ifaddrs* one = all; one; one = one->ifa_next) {
      if (!one->ifa_addr || one->ifa_addr->sa_family != AF_INET) continue;
      char text[INET_ADDRSTRLEN] = {};
      const auto* ip = reinterpret_cast<const sockaddr_in*>(one->ifa_addr);
      ::inet_ntop(AF_INET, &ip->sin_addr, text, sizeof(text));
      if (std::string(text).rfind("127.", 0) != 0) addresses.emplace_back(text);
    }
    ::freeifaddrs(all);
  }
  addresses.emplace_back("127.0.0.1");
  return addresses;
}

/// A connection within `seconds`, or -1.
int connect_within(const std::string& address, uint16_t port, double seconds) {
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  if (::inet_pton(AF_INET, address.c_str(), &to.sin_addr) != 1) return -1;
  const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (socket < 0) return -1;
  int error = 0;
  if (::connect(socket, reinterpret_cast<const sockaddr*>(&to), sizeof(to)) != 0) {
    error = errno;
    if (error == EINPROGRESS) {
      pollfd writable{socket, POLLOUT, 0};
      socklen_t length = sizeof(error);
      error = ::poll(&writable, 1, static_cast<int>(seconds * 1000)) == 1 ? 0 : ETIMEDOUT;
      if (error == 0) ::getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &length);
    }
  }
  if (error != 0) {
    ::close(socket);
    return -1;
  }
  // Sending waits, receiving is done when poll() says that there is something.
  ::fcntl(socket, F_SETFL, ::fcntl(socket, F_GETFL) & ~O_NONBLOCK);
  set_up_socket(socket);
  return socket;
}

}  // namespace

struct Watchdog::Peer {
  int socket = -1;
  int rank = -1;
  uint64_t token = 0;
  double heard_at = 0.0;
  bool is_done = false;  // it said that it leaves
  std::string inbox;
};

std::string Watchdog::Failure::text() const { return fmt::format("rank {} {}", rank, reason); }

Watchdog::Watchdog(int rank, int ranks,
                   const std::function<std::string(const std::string&)>& broadcast,
                   WatchdogOptions options)
    : rank_(rank), ranks_(ranks), options_(options) {
  wake_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wake_ < 0) throw Error("cannot watch the other ranks: {}", system_reason());
  if (rank == 0) {
    listen_and_accept(broadcast);
  } else {
    connect_to_root(broadcast);
  }
  const double now = now_seconds();
  for (Peer& peer : peers_) peer.heard_at = now;
  thread_ = std::thread([this] { run(); });
}

Watchdog::~Watchdog() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  wake();
  if (thread_.joinable()) thread_.join();
  if (stopper_.joinable()) stopper_.join();
  for (const Peer& peer : peers_) {
    if (peer.socket >= 0) ::close(peer.socket);
  }
  if (wake_ >= 0) ::close(wake_);
}

void Watchdog::listen_and_accept(const std::function<std::string(const std::string&)>& broadcast) {
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in any{};
  any.sin_family = AF_INET;
  any.sin_addr.s_addr = htonl(INADDR_ANY);
  socklen_t length = sizeof(any);
  if (listener < 0 || ::bind(listener, reinterpret_cast<sockaddr*>(&any), sizeof(any)) != 0 ||
      ::listen(listener, std::max(ranks_, 16)) != 0 ||
      ::getsockname(listener, reinterpret_cast<sockaddr*>(&any), &length) != 0) {
    throw Error("rank 0 cannot listen for the other ranks: {}", system_reason());
  }
  std::random_device random;
  const uint64_t token = uint64_t{random()} << 32 | random();
  std::string where = fmt::format("{} {}", token, ntohs(any.sin_port));
  for (const std::string& address : own_addresses()) where += " " + address;
  broadcast(where);

  const double deadline = now_seconds() + options_.connect;
  while (static_cast<int>(peers_.size()) + 1 < ranks_) {
    const double left = deadline - now_seconds();
    pollfd ready{listener, POLLIN, 0};
    if (left <= 0.0 || ::poll(&ready, 1, static_cast<int>(left * 1000) + 1) < 0) {
      if (left > 0.0 && errno == EINTR) continue;
      ::close(listener);
      throw Error("only {} of {} other ranks reached rank 0 within {} seconds", peers_.size(),
                  ranks_ - 1, options_.connect);
    }
    if (!(ready.revents & POLLIN)) continue;
    const int socket = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (socket < 0) continue;
    set_up_socket(socket);
    // A stranger that says nothing must not keep the ranks waiting.
    const timeval patience{5, 0};
    ::setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    Header header{};
    const bool is_ours = ::recv(socket, &header, sizeof(header), MSG_WAITALL) == sizeof(header) &&
                         header.token == token && header.kind == hello && header.length == 0 &&
                         header.rank > 0 && header.rank < ranks_;
    if (!is_ours) {
      ::close(socket);
      continue;
    }
    peers_.push_back({socket, header.rank, token, 0.0, false, {}});
  }
  ::close(listener);
}

void Watchdog::connect_to_root(const std::function<std::string(const std::string&)>& broadcast) {
  std::istringstream where(broadcast(""));
  uint64_t token = 0;
  uint16_t port = 0;
  where >> token >> port;
  const std::vector<std::string> addresses{std::istream_iterator<std::string>(where), {}};
  const double deadline = now_seconds() + options_.connect;
  int socket = -1;
  while (socket < 0 && now_seconds() < deadline) {
    for (const std::string& address : addresses) {
      socket = connect_within(address, port, 5.0);
      if (socket >= 0) break;
    }
    if (socket < 0) std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  if (socket < 0) {
    std::string tried;
    for (const std::string& address : addresses) tried += " " + address;
    throw Error("cannot reach rank 0 at port {} of{}: open it between the machines of the run",
                port, tried);
  }
  peers_.push_back({socket, 0, token, 0.0, false, {}});
  send(peers_[0], hello, rank_, "");
}

void Watchdog::wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake_, &one, sizeof(one));
}

void Watchdog::check() const {
  if (!has_failed_.load(std::memory_order_acquire)) return;
  const std::lock_guard lock(mutex_);
  throw RankFailure("{}", failure_->text());
}

void Watchdog::report(const std::string& reason) {
  std::unique_lock lock(mutex_);
  if (ranks_ == 1 || has_failed_) return;
  own_failure_ = reason;
  wake();
  told_.wait_for(lock, std::chrono::duration<double>(kTellingTime), [this] { return is_told_; });
}

void Watchdog::leave() {
  std::unique_lock lock(mutex_);
  if (ranks_ == 1) return;
  leaving_ = true;
  wake();
  told_.wait_for(lock, std::chrono::duration<double>(kTellingTime), [this] { return is_told_; });
}

void Watchdog::watch(std::function<void()> stop, std::function<std::string()> probe) {
  std::thread stopper;
  {
    const std::scoped_lock lock(probing_, mutex_);
    stop_ = std::move(stop);
    probe_ = std::move(probe);
    stopper.swap(stopper_);
  }
  if (stopper.joinable()) stopper.join();
}

void Watchdog::send(Peer& peer, int kind, int rank, const std::string& text) {
  if (peer.socket < 0) return;
  const size_t length = std::min(text.size(), kLongestText);
  const Header header{peer.token, kind, rank, static_cast<uint32_t>(length)};
  std::string bytes(reinterpret_cast<const char*>(&header), sizeof(header));
  // A connection that cannot be written to will be found broken by reading from it.
  send_bytes(peer.socket, bytes.append(text, 0, length));
}

void Watchdog::send_all(int kind, int rank, const std::string& text) {
  for (Peer& peer : peers_) send(peer, kind, rank, text);
}

void Watchdog::note_failure(int rank, const std::string& reason) {
  {
    const std::lock_guard lock(mutex_);
    if (failure_) return;
    failure_ = Failure{rank, reason};
    failed_at_ = now_seconds();
  }
  // Rank 0 tells everyone, the failed rank too: then that one knows that it has been heard. Before
  // the program here finds the failure: it may end at once.
  if (rank_ == 0) send_all(failed, rank, reason);
  const std::lock_guard lock(mutex_);
  // Before anything is stopped: whoever finds it stopped then finds the failure.
  has_failed_.store(true, std::memory_order_release);
  if (stop_) stopper_ = std::thread(stop_);
}

void Watchdog::handle(Peer& peer, int kind, int rank, const std::string& text) {
  peer.heard_at = now_seconds();
  if (kind == done) peer.is_done = true;
  if (kind != failed) return;
  if (rank == rank_) {  // rank 0 has heard what this rank reported
    const std::lock_guard lock(mutex_);
    is_told_ = true;
    told_.notify_all();
  }
  note_failure(rank, text);
}

void Watchdog::read_from(Peer& peer) {
  char buffer[4096];
  const ssize_t count = ::recv(peer.socket, buffer, sizeof(buffer), MSG_DONTWAIT);
  if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return;
  if (count <= 0) {
    ::close(peer.socket);
    peer.socket = -1;
    if (!peer.is_done)
      note_failure(peer.rank,
                   "ended without a word: it was killed, it crashed, or its machine did");
    return;
  }
  peer.inbox.append(buffer, static_cast<size_t>(count));
  while (peer.inbox.size() >= sizeof(Header)) {
    Header header{};
    std::memcpy(&header, peer.inbox.data(), sizeof(header));
    const size_t bytes = sizeof(header) + std::min<size_t>(header.length, kLongestText);
    if (peer.inbox.size() < bytes) break;
    const std::string text = peer.inbox.substr(sizeof(header), bytes - sizeof(header));
    peer.inbox.erase(0, bytes);
    handle(peer, header.kind, header.rank, text);
  }
}

void Watchdog::check_silence(Seconds now) {
  for (const Peer& peer : peers_) {
    if (peer.socket < 0 || peer.is_done || now - peer.heard_at < options_.silence) continue;
    note_failure(peer.rank,
                 fmt::format("has given no sign of life for {:.0f} seconds", options_.silence));
  }
}

void Watchdog::check_probe(Seconds now) {
  const std::lock_guard probing(probing_);
  std::function<std::string()> probe;
  {
    const std::lock_guard lock(mutex_);
    if (failure_ || own_failure_) return;
    probe = probe_;
  }
  if (probe_says_.empty()) {
    if (probe) probe_says_ = probe();
    probe_failed_at_ = now;
  } else if (now - probe_failed_at_ > kProbePatience) {
    const std::string reason = "failed: " + probe_says_;
    if (rank_ != 0) send_all(failed, rank_, reason);
    note_failure(rank_, reason);
  }
}

void Watchdog::die() {
  clear_live_line();
  spdlog::error("{}", failure_->text());
  spdlog::shutdown();
  std::_Exit(1);
}

void Watchdog::run() {
  double last_beat = 0.0, last_turn = now_seconds();
  bool has_reported = false, has_left = false;
  while (true) {
    std::vector<pollfd> ready{{wake_, POLLIN, 0}};
    for (const Peer& peer : peers_) ready.push_back({peer.socket, POLLIN, 0});  // -1: passed over
    ::poll(ready.data(), ready.size(), static_cast<int>(options_.heartbeat * 250));
    const double now = now_seconds();
    // Had this process itself been stopped (Ctrl-Z, a debugger), others' silence says nothing.
    if (now - last_turn > 0.25 * options_.silence + options_.heartbeat) {
      for (Peer& peer : peers_) peer.heard_at = now;
    }
    last_turn = now;
    uint64_t ignored = 0;
    [[maybe_unused]] const ssize_t drained = ::read(wake_, &ignored, sizeof(ignored));
    for (size_t i = 0; i < peers_.size(); ++i) {
      if (ready[i + 1].revents != 0) read_from(peers_[i]);
    }

    std::optional<std::string> own_failure;
    bool leaving = false, ending = false;
    {
      const std::lock_guard lock(mutex_);
      own_failure = own_failure_;
      leaving = leaving_;
      ending = ending_;
    }
    if (own_failure && !has_reported) {
      has_reported = true;
      if (rank_ != 0) send_all(failed, rank_, "failed: " + *own_failure);
      note_failure(rank_, "failed: " + *own_failure);
    }
    if (leaving && !has_left) {
      has_left = true;
      for (Peer& peer : peers_) {
        send(peer, done, rank_, "");
        peer.is_done = true;
      }
    }
    if (has_left || (rank_ == 0 && has_reported)) {
      const std::lock_guard lock(mutex_);
      is_told_ = true;
      told_.notify_all();
    }
    if (ending) return;
    if (now - last_beat >= options_.heartbeat) {
      last_beat = now;
      send_all(heartbeat, rank_, "");
    }
    check_silence(now);
    check_probe(now);
    if (has_failed_ && now - failed_at_ > options_.grace) die();
  }
}

}  // namespace sigtrain
