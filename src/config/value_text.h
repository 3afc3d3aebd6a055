// The one text form of every type a config key can have: what is accepted, how it is parsed and
// how it is written. parse_value(value_text(x)) is x, exactly.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/enum_names.h"
#include "config/schema.h"

namespace sigtrain {

/// A YAML scalar. `quoted`: written in quotes, so text even where it looks like a number.
struct Scalar {
  std::string text;
  bool quoted = false;
};

/// What a key of this type accepts, to follow "expects": "an integer".
std::string expectation(const int64_t&);
std::string expectation(const uint64_t&);
std::string expectation(const double&);
std::string expectation(const bool&);
std::string expectation(const std::string&);
std::string expectation(const AttentionBias&);
std::string expectation(const std::optional<double>&);
std::string expectation(const std::vector<std::string>&);
std::string expectation(const std::vector<double>&);

/// Parses a scalar into `out`. Returns what is wrong, or an empty string; `out` is written only
/// when nothing is. An integer may be written with an exponent where it is exact: 4e5 is 400000.
/// NaN and infinities are refused. `true` and `false` are the only booleans.
std::string parse_value(const Scalar& scalar, int64_t& out);
std::string parse_value(const Scalar& scalar, uint64_t& out);
std::string parse_value(const Scalar& scalar, double& out);
std::string parse_value(const Scalar& scalar, bool& out);
std::string parse_value(const Scalar& scalar, std::string& out);
std::string parse_value(const Scalar& scalar, AttentionBias& out);
std::string parse_value(const Scalar& scalar, std::optional<double>& out);

/// The text that parse_value reads back to the same value; numbers in their shortest such form.
std::string value_text(int64_t value);
std::string value_text(uint64_t value);
std::string value_text(double value);
std::string value_text(bool value);
std::string value_text(const std::string& value);
std::string value_text(const AttentionBias& value);
std::string value_text(const std::optional<double>& value);

/// "one of a, b, c" and the choice of one of `names` (its index, or what is wrong).
std::string expectation_of_names(const std::vector<std::string>& names);
std::string parse_name(const Scalar& scalar, const std::vector<std::string>& names, size_t& index);

template <typename E>
requires std::is_enum_v<E> std::vector<std::string> enum_names() {
  std::vector<std::string> names;
  for (const auto& known : kEnumNames<E>) names.emplace_back(known.name);
  return names;
}

template <typename E>
requires std::is_enum_v<E> std::string expectation(const E&) {
  return expectation_of_names(enum_names<E>());
}

template <typename E>
requires std::is_enum_v<E> std::string parse_value(const Scalar& scalar, E& out) {
  size_t index = 0;
  std::string problem = parse_name(scalar, enum_names<E>(), index);
  if (problem.empty()) out = kEnumNames<E>[index].value;
  return problem;
}

template <typename E>
requires std::is_enum_v<E> std::string value_text(E value) { return std::string(enum_name(value)); }

/// "'abc'": a scalar as messages quote it, cut where it is long.
std::string quote(std::string_view text);

}  // namespace sigtrain
