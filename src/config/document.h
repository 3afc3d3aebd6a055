// YAML files and overrides as one tree in which every value knows where it was written.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/problem.h"
#include "config/value_text.h"

namespace sigtrain {

enum class NodeKind : uint8_t { null, scalar, list, map };

/// A value of a YAML document. A child of a map has its key; a list's children have none.
struct Node {
  NodeKind kind = NodeKind::map;
  Place place;  // of the scalar itself; for lists, maps and nulls of the key they belong to
  Scalar scalar;
  std::string key;
  Place key_place;
  std::vector<Node> children;

  /// The child with this key, or null.
  Node* find(std::string_view wanted);
};

/// Describes a node as messages do: "'abc'", "a list", "a map", "nothing".
std::string describe(const Node& node);

/// A config with all its bases and overrides, as they were found.
struct Document {
  Node root;
  bool complete = true;  // every file was found, and it and every override is YAML
};

/// Reads the YAML file at `path`, under it the file its top-level `base:` names (relative to the
/// naming file), and so on, then applies the overrides "a.b=value" (values are YAML) in order. Maps
/// merge, with the keys of a child over its base's; scalars and lists replace. Unreadable files,
/// syntax errors, cycles of bases, keys given twice and malformed overrides go to `problems`.
Document load_document(const std::string& path, const std::vector<std::string>& overrides,
                       Problems& problems);

}  // namespace sigtrain
