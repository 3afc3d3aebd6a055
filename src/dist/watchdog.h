// Knows within seconds that a rank of the run ended before its time, however it ended, and ends the
// others. It works beside the library that exchanges tensors, whose calls may wait for a dead rank
// forever: every rank keeps a TCP connection to rank 0, with a thread of its own behind it.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace sigtrain {

struct WatchdogOptions {
  double heartbeat = 1.0;  // seconds between signs of life
  double silence = 15.0;   // seconds without one after which a rank counts as lost
  double grace = 5.0;      // seconds for the program to end by itself once a rank has failed
  double connect = 60.0;   // seconds for all ranks to connect at the start
  double answer = 5.0;     // seconds for a new connection to prove that it is of this run
};

class Watchdog {
 public:
  /// Connects the ranks; all construct theirs at the same time. `broadcast` returns rank 0's text
  /// on every rank. Throws Error if they cannot reach each other.
  Watchdog(int rank, int ranks, const std::function<std::string(const std::string&)>& broadcast,
           WatchdogOptions options = {});
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  /// Throws RankFailure, naming the rank, once one has failed.
  void check() const;
  /// Tells all ranks that this one ends and why; returns when they know it, or after two seconds.
  void report(const std::string& reason);
  /// From now on ranks may go without it being a failure.
  void leave();

  /// See ProcessGroup::watch. `stop` runs once, on a thread of its own. What `probe` says becomes
  /// this rank's failure if no other rank's turns up within three seconds: a connection that broke
  /// is mostly noticed by the neighbours of the rank that died.
  void watch(std::function<void()> stop, std::function<std::string()> probe);

 private:
  struct Peer;
  struct Failure {
    int rank = 0;
    std::string reason;
    std::string text() const;
  };
  using Seconds = double;

  void listen_and_accept(const std::function<std::string(const std::string&)>& broadcast);
  void connect_to_root(const std::function<std::string(const std::string&)>& broadcast);
  /// Makes the connection the one to rank 0 if rank 0 answers; else closes it. -1: there is none.
  bool greet(int socket, uint64_t token);
  void run();
  void read_from(Peer& peer);
  void handle(Peer& peer, int kind, int rank, const std::string& text);
  void send(Peer& peer, int kind, int rank, const std::string& text);
  void send_all(int kind, int rank, const std::string& text);
  void note_failure(int rank, const std::string& reason);
  void check_silence(Seconds now);
  void check_probe(Seconds now);
  /// Ends the process with the failure's text.
  [[noreturn]] void die();
  void wake();

  int rank_, ranks_;
  WatchdogOptions options_;
  int wake_ = -1;            // eventfd
  std::vector<Peer> peers_;  // rank 0: all others; others: rank 0. The thread's, once it runs
  std::thread thread_, stopper_;

  std::atomic<bool> has_failed_{false};  // and rank 0 has told the others
  std::mutex probing_;                   // held while the probe runs; taken before mutex_
  mutable std::mutex mutex_;
  std::condition_variable told_;
  std::optional<Failure> failure_;          // the first that was heard of; then it stays
  std::optional<std::string> own_failure_;  // to be told to the others
  bool is_told_ = false;                    // ... and they know
  bool leaving_ = false, ending_ = false;
  std::function<void()> stop_;
  std::function<std::string()> probe_;
  // The thread's alone.
  Seconds failed_at_ = 0.0, probe_failed_at_ = 0.0;
  std::string probe_says_;
};

}  // namespace sigtrain
