// The known word a misspelt one was probably meant to be.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sigtrain {

/// The fewest insertions, deletions, replacements and swaps of neighbouring characters that turn
/// `a` into `b`, no character touched twice (optimal string alignment).
int edit_distance(std::string_view a, std::string_view b);

/// The candidate nearest to `word`, the first of equals; none when even that one differs in more
/// than a third of its characters (one, for short words).
std::optional<std::string> nearest(std::string_view word,
                                   const std::vector<std::string>& candidates);

}  // namespace sigtrain
