#include "config/writer.h"

#include <fmt/format.h>
#include <yaml-cpp/emitter.h>
#include <yaml-cpp/emittermanip.h>

#include <vector>

#include "config/fields.h"
#include "config/value_text.h"

namespace sigtrain {
namespace {

template <typename Item>
void emit(YAML::Emitter& out, const std::vector<Item>& list) {
  out << YAML::Flow << YAML::BeginSeq;
  for (const Item& item : list) out << value_text(item);
  out << YAML::EndSeq;
}

template <typename T>
void emit(YAML::Emitter& out, const T& value) {
  if constexpr (kIsSection<T>) {
    out << YAML::BeginMap;
    for_each_field(value, [&](const auto& field, const auto& member) {
      out << YAML::Key << std::string(field.key) << YAML::Value;
      emit(out, member);
    });
    out << YAML::EndMap;
  } else {
    out << value_text(value);
  }
}

template <typename Item>
std::string default_text(const std::vector<Item>& list) {
  std::string text;
  for (const Item& item : list) text += (text.empty() ? "" : ", ") + value_text(item);
  return "[" + text + "]";
}
template <typename T>
std::string default_text(const T& value) {
  const std::string text = value_text(value);
  return text.empty() ? "''" : text;
}

}  // namespace

std::string to_yaml(const Config& config) {
  YAML::Emitter out;
  emit(out, config);
  return std::string(out.c_str()) + "\n";
}

std::string config_reference() {
  const Config defaults;
  std::string text;
  for_each_value(defaults, [&](const std::string& path, const auto& field, const auto& value) {
    text +=
        fmt::format("{}: {}\n    {} ({}", path, default_text(value), field.doc, expectation(value));
    const std::string range = range_text(field.range);
    text += range.empty() ? ")\n" : fmt::format(", {})\n", range);
  });
  return text;
}

}  // namespace sigtrain
