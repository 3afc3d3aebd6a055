#include "dist/process_group.h"

#include <algorithm>
#include <cstring>
#include <thread>

#include "dist/launcher.h"
#if defined(SIGTRAIN_HAS_MPI)
#include "dist/mpi_group.h"
#endif

namespace sigtrain {
namespace {

// How a rank's part of together() ended; the first character of what it tells the others.
constexpr char kWell = '+', kError = '!', kUsageError = '?';

}  // namespace

void ProcessGroup::sum(std::span<double> values) {
  const std::vector<std::string> all =
      gather({reinterpret_cast<const char*>(values.data()), values.size_bytes()});
  std::vector<double> of_rank(values.size());
  std::fill(values.begin(), values.end(), 0.0);
  for (const std::string& bytes : all) {
    if (bytes.size() != values.size_bytes())
      throw Error("ranks add up {} and {} bytes", values.size_bytes(), bytes.size());
    std::memcpy(of_rank.data(), bytes.data(), bytes.size());
    for (size_t i = 0; i < values.size(); ++i) values[i] += of_rank[i];
  }
}

double ProcessGroup::sum(double value) {
  sum(std::span(&value, 1));
  return value;
}

int SingleProcess::cores() const {
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

std::string ProcessGroup::broadcast(const std::string& text) {
  return gather(is_root() ? text : std::string())[0];
}

std::unique_ptr<ProcessGroup> join_process_group() {
  const Launch launch = read_launch();
  if (!launch.is_launched()) return std::make_unique<SingleProcess>();
#if defined(SIGTRAIN_HAS_MPI)
  return std::make_unique<MpiGroup>(launch);
#else
  if (launch.ranks == 1) return std::make_unique<SingleProcess>();
  throw UsageError(
      "{} started {} processes, but this build has no MPI: {}. One process needs no launcher",
      launch.launcher, launch.ranks, SIGTRAIN_MPI_MISSING);
#endif
}

void together(ProcessGroup& group, const std::function<void()>& part) {
  if (group.size() == 1) return part();
  std::string outcome(1, kWell);
  try {
    part();
  } catch (const RankFailure&) {
    throw;
  } catch (const AgreedFailure&) {
    throw;
  } catch (const UsageError& error) {
    outcome.assign(1, kUsageError).append(error.what());
  } catch (const std::exception& error) {
    outcome.assign(1, kError).append(error.what());
  }
  const std::vector<std::string> outcomes = group.gather(outcome);
  const auto failed = std::find_if(outcomes.begin(), outcomes.end(),
                                   [](const std::string& text) { return text[0] != kWell; });
  if (failed == outcomes.end()) return;
  const bool is_common =
      std::all_of(outcomes.begin(), outcomes.end(),
                  [&](const std::string& text) { return text == outcomes.front(); });
  const std::string text =
      is_common ? failed->substr(1)
                : fmt::format("rank {} failed: {}", failed - outcomes.begin(), failed->substr(1));
  throw AgreedFailure(text, failed->front() == kUsageError, is_common);
}

}  // namespace sigtrain
