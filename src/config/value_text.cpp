#include "config/value_text.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <system_error>

#include "config/nearest.h"

namespace sigtrain {
namespace {

constexpr std::string_view kMinusLogSeqLen = "-log(seq_len)";
constexpr std::string_view kInverseSqrtHeadDim = "1/sqrt(head_dim)";
// Up to here every integer is a double.
constexpr double kLargestExactInteger = 9007199254740992.0;

template <typename T>
std::string unexpected(const Scalar& scalar, const T& wanted) {
  return fmt::format("expects {}, got {}", expectation(wanted), quote(scalar.text));
}

enum class Parsed : uint8_t { whole, out_of_range, no };

template <typename Number>
Parsed parse_number(std::string_view text, Number& out) {
  if (text.size() > 1 && text[0] == '+' && text[1] != '-') text.remove_prefix(1);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (error == std::errc::invalid_argument || end != text.data() + text.size()) return Parsed::no;
  return error == std::errc() ? Parsed::whole : Parsed::out_of_range;
}

template <typename T>
std::string quoted(const Scalar& scalar, const T& wanted) {
  return fmt::format("expects {}, got the text {} (remove the quotes)", expectation(wanted),
                     quote(scalar.text));
}

template <typename Integer>
std::string parse_integer(const Scalar& scalar, Integer& out) {
  Integer value = 0;
  const Parsed parsed = parse_number(scalar.text, value);
  if (parsed == Parsed::out_of_range) {
    return fmt::format("expects {} of 64 bits, got {}", expectation(out), quote(scalar.text));
  }
  if (parsed == Parsed::no) {
    double number = 0.0;
    if (parse_number(scalar.text, number) != Parsed::whole || std::trunc(number) != number ||
        std::abs(number) > kLargestExactInteger || (std::is_unsigned_v<Integer> && number < 0.0)) {
      return unexpected(scalar, out);
    }
    value = static_cast<Integer>(number);
  }
  if (scalar.quoted) return quoted(scalar, out);
  out = value;
  return {};
}

bool names_no_finite_number(std::string_view text) {
  if (!text.empty() && (text[0] == '+' || text[0] == '-')) text.remove_prefix(1);
  if (!text.empty() && text[0] == '.') text.remove_prefix(1);
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return lower == "nan" || lower == "inf" || lower == "infinity";
}

// `wanted` is what the key expects, which may be more than a number.
template <typename T>
std::string parse_finite(const Scalar& scalar, const T& wanted, double& out) {
  double number = 0.0;
  if (names_no_finite_number(scalar.text)) {
    return fmt::format("expects a finite number, got {}", quote(scalar.text));
  }
  const Parsed parsed = parse_number(scalar.text, number);
  if (parsed == Parsed::out_of_range) {
    return fmt::format("{} is beyond the range of a double", quote(scalar.text));
  }
  if (parsed == Parsed::no) return unexpected(scalar, wanted);
  if (scalar.quoted) return quoted(scalar, wanted);
  out = number;
  return {};
}

}  // namespace

std::string quote(std::string_view text) {
  constexpr size_t kShown = 60;
  if (text.size() <= kShown) return fmt::format("'{}'", text);
  return fmt::format("'{}...'", text.substr(0, kShown));
}

std::string expectation(const int64_t&) { return "an integer"; }
std::string expectation(const uint64_t&) { return "a non-negative integer"; }
std::string expectation(const double&) { return "a number"; }
std::string expectation(const bool&) { return "true or false"; }
std::string expectation(const std::string&) { return "text"; }
std::string expectation(const AttentionBias&) {
  return fmt::format("a number or {}", kMinusLogSeqLen);
}
std::string expectation(const std::optional<double>&) {
  return fmt::format("a number or {}", kInverseSqrtHeadDim);
}
std::string expectation(const std::vector<std::string>&) { return "a list, as [a, b]"; }
std::string expectation(const std::vector<double>&) { return "a list of numbers, as [1, 2]"; }

std::string parse_value(const Scalar& scalar, int64_t& out) { return parse_integer(scalar, out); }
std::string parse_value(const Scalar& scalar, uint64_t& out) { return parse_integer(scalar, out); }
std::string parse_value(const Scalar& scalar, double& out) {
  return parse_finite(scalar, out, out);
}

std::string parse_value(const Scalar& scalar, bool& out) {
  if (scalar.text != "true" && scalar.text != "false") return unexpected(scalar, out);
  if (scalar.quoted) return quoted(scalar, out);
  out = scalar.text == "true";
  return {};
}

std::string parse_value(const Scalar& scalar, std::string& out) {
  out = scalar.text;
  return {};
}

std::string parse_value(const Scalar& scalar, AttentionBias& out) {
  if (scalar.text == kMinusLogSeqLen) {
    out = {.minus_log_seq_len = true, .value = 0.0};
    return {};
  }
  double number = 0.0;
  std::string problem = parse_finite(scalar, out, number);
  if (problem.empty()) out = {.minus_log_seq_len = false, .value = number};
  return problem;
}

std::string parse_value(const Scalar& scalar, std::optional<double>& out) {
  if (scalar.text == kInverseSqrtHeadDim) {
    out.reset();
    return {};
  }
  double number = 0.0;
  std::string problem = parse_finite(scalar, out, number);
  if (problem.empty()) out = number;
  return problem;
}

std::string value_text(int64_t value) { return fmt::format("{}", value); }
std::string value_text(uint64_t value) { return fmt::format("{}", value); }
std::string value_text(double value) { return fmt::format("{}", value); }
std::string value_text(bool value) { return value ? "true" : "false"; }
std::string value_text(const std::string& value) { return value; }
std::string value_text(const AttentionBias& value) {
  return value.minus_log_seq_len ? std::string(kMinusLogSeqLen) : value_text(value.value);
}
std::string value_text(const std::optional<double>& value) {
  return value ? value_text(*value) : std::string(kInverseSqrtHeadDim);
}

std::string expectation_of_names(const std::vector<std::string>& names) {
  return fmt::format("one of {}", fmt::join(names, ", "));
}

std::string parse_name(const Scalar& scalar, const std::vector<std::string>& names, size_t& index) {
  const auto found = std::find(names.begin(), names.end(), scalar.text);
  if (found != names.end()) {
    index = static_cast<size_t>(found - names.begin());
    return {};
  }
  std::string problem =
      fmt::format("expects {}, got {}", expectation_of_names(names), quote(scalar.text));
  if (const auto near = nearest(scalar.text, names)) {
    problem += fmt::format(" (did you mean '{}'?)", *near);
  }
  return problem;
}

}  // namespace sigtrain
