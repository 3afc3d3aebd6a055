#include "config/reader.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "config/document.h"
#include "config/fields.h"
#include "config/nearest.h"
#include "config/validate.h"
#include "config/value_text.h"

namespace sigtrain {
namespace {

class Reader {
 public:
  Reader(const std::string& path, const std::vector<std::string>& overrides)
      : path_(path), document_(load_document(path, overrides, problems_)) {}

  Config read() {
    Config config;
    read_value(document_.root, config, "");
    if (document_.complete) {
      for (const Impossible& found : impossible_values(config, unusable_)) add_impossible(found);
    }
    problems_.throw_if_any();
    return config;
  }

 private:
  void reject(const Node& node, const std::string& path, const std::string& message) {
    problems_.add(node.place, path, message);
    unusable_.insert(path);
  }

  bool has_kind(const Node& node, NodeKind kind, const std::string& path,
                std::string_view expected) {
    if (node.kind == kind) return true;
    if (node.kind == NodeKind::null) {
      reject(node, path, "has no value: write one, or remove the key");
    } else {
      reject(node, path, fmt::format("expects {}, got {}", expected, describe(node)));
    }
    return false;
  }

  template <typename T>
  void read_value(const Node& node, T& value, const std::string& path) {
    if constexpr (kIsSection<T>) {
      if (!has_kind(node, NodeKind::map, path, "keys and values")) return;
      for (const Node& child : node.children) read_key(child, value, path);
    } else {
      if (!has_kind(node, NodeKind::scalar, path, expectation(value))) return;
      places_[path] = node.place;
      const std::string problem = parse_value(node.scalar, value);
      if (!problem.empty()) reject(node, path, problem);
    }
  }

  template <typename Item>
  void read_value(const Node& node, std::vector<Item>& list, const std::string& path) {
    if (!has_kind(node, NodeKind::list, path, expectation(list))) return;
    places_[path] = node.place;
    list.clear();
    for (const Node& item : node.children) {
      const std::string item_path = fmt::format("{}[{}]", path, list.size());
      read_value(item, list.emplace_back(), item_path);
      if (unusable_.count(item_path) > 0) unusable_.insert(path);
    }
  }

  template <typename Section>
  void read_key(const Node& child, Section& section, const std::string& path) {
    bool known = false;
    std::vector<std::string> keys;
    for_each_field(section, [&](const auto& field, auto& value) {
      keys.emplace_back(field.key);
      if (field.key != child.key) return;
      known = true;
      read_value(child, value, join_path(path, field.key));
    });
    if (known) return;
    std::string message = "unknown key";
    if (const auto sibling = nearest(child.key, keys)) {
      message += fmt::format(" (did you mean '{}'?)", *sibling);
      // The value is there, under the wrong name: it is not missing.
      unusable_.insert(join_path(path, *sibling));
    } else if (const auto other = same_key_elsewhere(child.key, path)) {
      message += fmt::format(" (did you mean '{}'?)", *other);
      unusable_.insert(*other);
    } else if (child.key.find('.') != std::string::npos) {
      message += " (in a file, each part of a key path is a line of its own, indented)";
    } else {
      message += fmt::format(" (known here: {})", fmt::join(keys, ", "));
    }
    problems_.add(child.key_place, join_path(path, child.key), message);
  }

  // The path of a key of this name in another section, below `path` rather than outside.
  static std::optional<std::string> same_key_elsewhere(const std::string& key,
                                                       const std::string& path) {
    std::optional<std::string> found;
    bool found_below = false;
    const Config any;
    for_each_value(any, [&](const std::string& other, const auto& field, const auto&) {
      const bool below = path.empty() || other.rfind(path + ".", 0) == 0;
      if (field.key != key || (found && !(below && !found_below))) return;
      found = other;
      found_below = below;
    });
    return found;
  }

  // Blames the first of the keys that an override gives: the files agreed until it came. Else the
  // first that is given at all, else the file as a whole.
  void add_impossible(const Impossible& found) {
    std::vector<const Place*> given;
    for (const std::string& key : found.keys) {
      const auto place = places_.find(key);
      if (place != places_.end()) given.push_back(&place->second);
    }
    if (given.empty()) {
      Place file;
      file.text = path_;
      problems_.add(file, found.keys[0], found.message);
      return;
    }
    const auto of_override = std::find_if(given.begin(), given.end(),
                                          [](const Place* place) { return place->is_override(); });
    const Place& blamed = of_override != given.end() ? **of_override : *given[0];
    const auto own = places_.find(found.keys[0]);
    std::string message = found.message;
    if (own != places_.end() && &own->second != &blamed)
      message += fmt::format(" ({} is given in {})", found.keys[0], own->second.text);
    problems_.add(blamed, found.keys[0], message);
  }

  const std::string path_;
  Problems problems_;
  Document document_;
  std::map<std::string, Place> places_;
  std::set<std::string> unusable_;
};

}  // namespace

Config read_config(const std::string& path, const std::vector<std::string>& overrides) {
  return Reader(path, overrides).read();
}

}  // namespace sigtrain
