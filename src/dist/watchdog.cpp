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
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <random>
#include <sstream>
#include <system_error>
#include <utility>

#include "core/log.h"
#include "dist/process_group.h"

namespace sigtrain {
namespace {

constexpr double kProbePatience = 3.0;  // seconds
constexpr double kTellingTime = 2.0;    // seconds
constexpr size_t kLongestText = 1 << 16;

enum Kind : int32_t { hello = 1, welcome, heartbeat, failed, done };

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

/// The header without text that comes next, of this run and kind; nothing if another or none comes
/// within `seconds`.
std::optional<Header> receive(int socket, double seconds, uint64_t token, int kind) {
  timeval patience{};
  patience.tv_sec = static_cast<time_t>(seconds);
  patience.tv_usec = static_cast<suseconds_t>((seconds - std::floor(seconds)) * 1e6);
  ::setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  Header header{};
  for (size_t have = 0; have < sizeof(header);) {
    const ssize_t count =
        ::recv(socket, reinterpret_cast<char*>(&header) + have, sizeof(header) - have, MSG_WAITALL);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return {};
    have += static_cast<size_t>(count);
  }
  if (header.token != token || header.kind != kind || header.length != 0) return {};
  return header;
}

/// An address that other machines may know this one by; empty for any other.
std::string text_of(const sockaddr* address) {
  char text[INET6_ADDRSTRLEN] = {};
  if (address && address->sa_family == AF_INET) {
    const in_addr& ip = reinterpret_cast<const sockaddr_in*>(address)->sin_addr;
    if (ntohl(ip.s_addr) >> 24 != IN_LOOPBACKNET) ::inet_ntop(AF_INET, &ip, text, sizeof(text));
  } else if (address && address->sa_family == AF_INET6) {
    const in6_addr& ip = reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr;
    if (!IN6_IS_ADDR_LOOPBACK(&ip) && !IN6_IS_ADDR_LINKLOCAL(&ip))
      ::inet_ntop(AF_INET6, &ip, text, sizeof(text));
  }
  return text;
}

/// Addresses of this machine that others may reach it by; the loopback last, for ranks on it.
std::vector<std::string> own_addresses() {
  std::vector<std::string> addresses;
  ifaddrs* all = nullptr;
  if (::getifaddrs(&all) == 0) {
    for (const ifaddrs* one = all; one; one = one->ifa_next) {
      if (std::string text = text_of(one->ifa_addr); !text.empty())
        addresses.push_back(std::move(text));
    }
    ::freeifaddrs(all);
  }
  addresses.emplace_back("127.0.0.1");
  return addresses;
}

/// A socket that listens on all addresses, of IPv4 alone where the machine has no IPv6, at a free
/// port, which it sets; -1 if it cannot.
int listen_everywhere(int backlog, uint16_t& port) {
  for (const int family : {AF_INET6, AF_INET}) {
    const int socket = ::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (socket < 0) continue;
    const int off = 0;
    if (family == AF_INET6) ::setsockopt(socket, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    // Zeros are any address and a free port of either family, whose ports are at the same place.
    static_assert(offsetof(sockaddr_in6, sin6_port) == offsetof(sockaddr_in, sin_port));
    sockaddr_in6 any{};
    any.sin6_family = static_cast<sa_family_t>(family);
    auto* address = reinterpret_cast<sockaddr*>(&any);
    socklen_t length = family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
    if (::bind(socket, address, length) == 0 && ::listen(socket, backlog) == 0 &&
        ::getsockname(socket, address, &length) == 0) {
      port = ntohs(any.sin6_port);
      return socket;
    }
    ::close(socket);
  }
  return -1;
}

/// A connection within `seconds`, or -1.
int connect_within(const std::string& address, uint16_t port, double seconds) {
  addrinfo hints{}, *to = nullptr;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  if (::getaddrinfo(address.c_str(), std::to_string(port).c_str(), &hints, &to) != 0) return -1;
  const int socket = ::socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  int error = 0;
  if (socket >= 0 && ::connect(socket, to->ai_addr, to->ai_addrlen) != 0) error = errno;
  ::freeaddrinfo(to);
  if (socket < 0) return -1;
  if (error != 0) {
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
  uint16_t port = 0;
  const int listener = listen_everywhere(std::max(ranks_, 16), port);
  if (listener < 0) throw Error("rank 0 cannot listen for the other ranks: {}", system_reason());
  std::random_device random;
  const uint64_t token = uint64_t{random()} << 32 | random();
  std::string where = std::to_string(token);
  for (const std::string& address : own_addresses()) where += fmt::format(" {} {}", address, port);
  broadcast(where);

  const double deadline = now_seconds() + options_.connect;
  while (static_cast<int>(peers_.size()) + 1 < ranks_) {
    const double left = deadline - now_seconds();
    pollfd ready{listener, POLLIN, 0};
    // Those that are connected already count the silence of rank 0.
    send_all(heartbeat, 0, "");
    const double patience = std::min(left, options_.heartbeat);
    if (left <= 0.0 || ::poll(&ready, 1, static_cast<int>(patience * 1000) + 1) < 0) {
      if (left > 0.0 && errno == EINTR) continue;
      ::close(listener);
      throw Error("only {} of {} other ranks reached rank 0 within {} seconds", peers_.size(),
                  ranks_ - 1, options_.connect);
    }
    if (!(ready.revents & POLLIN)) continue;
    const int socket = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (socket < 0) continue;
    set_up_socket(socket);
    // A stranger that says nothing must not keep the ranks waiting; and a rank that lost patience
    // meanwhile, and will connect again, does not count.
    const std::optional<Header> first = receive(socket, options_.answer, token, hello);
    Peer peer{socket, first ? first->rank : 0, token, 0.0, false, {}};
    const bool is_rank = peer.rank > 0 && peer.rank < ranks_;
    if (is_rank) send(peer, welcome, peer.rank, "");
    if (!is_rank || !receive(socket, options_.answer, token, hello)) {
      ::close(socket);
      continue;
    }
    peers_.push_back(peer);
  }
  ::close(listener);
}

void Watchdog::connect_to_root(const std::function<std::string(const std::string&)>& broadcast) {
  std::istringstream where(broadcast(""));
  uint64_t token = 0;
  where >> token;
  std::vector<std::pair<std::string, uint16_t>> places;
  for (auto [address, port] = std::pair<std::string, uint16_t>(); where >> address >> port;)
    places.emplace_back(address, port);
  const double deadline = now_seconds() + options_.connect;
  while (now_seconds() < deadline) {
    for (const auto& [address, port] : places) {
      if (now_seconds() >= deadline) break;
      if (greet(connect_within(address, port, options_.answer), token)) return;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  std::string tried;
  for (const auto& [address, port] : places)
    tried += fmt::format("{}{} port {}", tried.empty() ? "" : ", ", address, port);
  throw Error("cannot reach rank 0 at any of {}: open the port between the machines of the run",
              tried);
}

bool Watchdog::greet(int socket, uint64_t token) {
  if (socket < 0) return false;
  Peer root{socket, 0, token, 0.0, false, {}};
  send(root, hello, rank_, "");
  // An address of rank 0's may be another machine's too, where anything may listen at that port.
  // Rank 0 may have to lose patience with a stranger first.
  const std::optional<Header> answer = receive(socket, 2.0 * options_.answer, token, welcome);
  if (!answer || answer->rank != rank_) {
    ::close(socket);
    return false;
  }
  send(root, hello, rank_, "");
  peers_.push_back(root);
  return true;
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
