#include "config/document.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <sstream>
#include <utility>

#include "config/fields.h"

namespace sigtrain {
namespace {

constexpr std::string_view kBaseKey = "base";

// What a text was read from: a file, or one override.
struct Source {
  std::string name;        // the path, or "--set KEY=VALUE"
  std::string shown_path;  // the KEY of an override
  int number = 0;
  bool is_file = true;

  Place at(int line) const {
    return {.text = is_file ? fmt::format("{}:{}", name, line) : name,
            .shown = shown_path,
            .source = number,
            .line = is_file ? line : 0};
  }
};

// Builds the tree from the parser's events. Working on events rather than on yaml-cpp's own tree
// keeps the place of every key, and aliases, which could nest without end, can be refused.
class TreeBuilder : public YAML::EventHandler {
 public:
  // `path` is the key path of the document's top (of overrides: their KEY).
  TreeBuilder(const Source& source, std::string path, Problems& problems)
      : source_(source), path_(std::move(path)), problems_(problems) {}

  // The document's top; none for an empty document.
  std::optional<Node> take_root() { return std::move(root_); }
  bool started() const { return started_; }
  int first_line() const { return first_line_; }

  void OnDocumentStart(const YAML::Mark& mark) override {
    started_ = true;
    first_line_ = mark.line + 1;
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t) override { add(NodeKind::null, mark, {}); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    problems_.add(place(mark), current_path(), "aliases (*name) are not read: write the value out");
    if (open_.empty() || open_.back().node.kind == NodeKind::list) return;
    // As a key it makes the pair unusable; as a value it ends the pair, which is dropped.
    open_.back().has_key = !open_.back().has_key;
    open_.back().usable_key = false;
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                const std::string& value) override {
    check_tag(mark, tag);
    add(NodeKind::scalar, mark, {.text = value, .quoted = tag == "!"});
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {
    check_tag(mark, tag);
    open_.push_back({.node = new_node(NodeKind::list, mark)});
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {
    check_tag(mark, tag);
    open_.push_back({.node = new_node(NodeKind::map, mark)});
  }
  void OnMapEnd() override { close(); }

 private:
  // A list or map whose end has not been seen, and the key whose value comes next.
  struct Open {
    Node node;
    bool has_key = false;
    bool usable_key = true;
    std::string key = {};
    Place key_place = {};
  };

  Place place(const YAML::Mark& mark) const { return source_.at(mark.line + 1); }

  std::string current_path() const {
    std::string path = path_;
    for (const Open& open : open_) {
      if (open.has_key) path = join_path(path, open.key);
    }
    return path;
  }

  void check_tag(const YAML::Mark& mark, const std::string& tag) {
    // yaml-cpp says "?" or nothing for a plain node, "!" for a quoted one.
    if (tag.empty() || tag == "?" || tag == "!") return;
    problems_.add(place(mark), current_path(),
                  fmt::format("YAML tags are not read: remove {}", quote(tag)));
  }

  // A list, map or null starts where its key is: the parser's mark may be lines further down. So
  // for an empty list item, which has neither key nor text, the list's place is the nearest known.
  Node new_node(NodeKind kind, const YAML::Mark& mark) const {
    Node node;
    node.kind = kind;
    node.place = place(mark);
    if (!open_.empty() && kind != NodeKind::scalar) {
      const Open& parent = open_.back();
      if (parent.has_key) node.place = parent.key_place;
      if (parent.node.kind == NodeKind::list && kind == NodeKind::null) {
        node.place = parent.node.place;
      }
    }
    return node;
  }

  void add(NodeKind kind, const YAML::Mark& mark, Scalar&& scalar) {
    Node node = new_node(kind, mark);
    node.scalar = std::move(scalar);
    add(std::move(node));
  }

  void close() {
    Node node = std::move(open_.back().node);
    open_.pop_back();
    add(std::move(node));
  }

  void add(Node&& node) {
    if (open_.empty()) {
      root_ = std::move(node);
      return;
    }
    Open& parent = open_.back();
    if (parent.node.kind == NodeKind::list) {
      parent.node.children.push_back(std::move(node));
    } else if (!parent.has_key) {
      take_key(parent, node);
    } else {
      parent.has_key = false;
      if (!parent.usable_key) return;
      node.key = parent.key;
      node.key_place = parent.key_place;
      parent.node.children.push_back(std::move(node));
    }
  }

  void take_key(Open& parent, const Node& node) {
    const std::string path = current_path();
    parent.has_key = true;
    parent.usable_key = node.kind == NodeKind::scalar;
    parent.key = node.scalar.text;
    parent.key_place = node.place;
    if (!parent.usable_key) {
      problems_.add(node.place, path, fmt::format("a key is text, got {}", describe(node)));
    } else if (const Node* first = parent.node.find(parent.key)) {
      parent.usable_key = false;
      problems_.add(node.place, join_path(path, parent.key),
                    source_.is_file
                        ? fmt::format("given twice (first at line {})", first->key_place.line)
                        : std::string("given twice"));
    }
  }

  const Source& source_;
  const std::string path_;
  Problems& problems_;
  std::vector<Open> open_;
  std::optional<Node> root_;
  bool started_ = false;
  int first_line_ = 1;
};

// Whether there is a tab in front of what line `number`, counted from 1, says.
bool is_indented_by_tab(const std::string& text, int number) {
  std::istringstream lines(text);
  std::string line;
  while (number-- > 0 && std::getline(lines, line)) {
  }
  return line.substr(0, line.find_first_not_of(" \t")).find('\t') != std::string::npos;
}

// The tree of `text`; none where it is empty or (then *valid is false) not YAML.
std::optional<Node> parse_yaml(const std::string& text, const Source& source,
                               const std::string& path, Problems& problems, bool* valid) {
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    TreeBuilder builder(source, path, problems);
    parser.HandleNextDocument(builder);
    Problems ignored;
    TreeBuilder second(source, path, ignored);
    parser.HandleNextDocument(second);
    if (second.started()) {
      problems.add(source.at(second.first_line()), path,
                   "a second YAML document starts here: only one is read");
    }
    return builder.take_root();
  } catch (const YAML::Exception& e) {
    const int line = e.mark.is_null() ? 1 : e.mark.line + 1;
    problems.add(source.at(line), path,
                 fmt::format("not valid YAML: {}{}", e.msg,
                             is_indented_by_tab(text, line)
                                 ? " (the line is indented by a tab: YAML takes spaces)"
                                 : ""));
    *valid = false;
    return std::nullopt;
  }
}

// The text of a file, or why it cannot be read.
std::optional<std::string> read_text(const std::string& path, std::string& reason) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    reason = "it is a folder";
    return std::nullopt;
  }
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (file && file.peek() != std::ifstream::traits_type::eof()) text << file.rdbuf();
  if (!file.is_open() || file.bad()) {
    reason = errno != 0 ? std::strerror(errno) : "reading failed";
    return std::nullopt;
  }
  return std::move(text).str();
}

// Puts `over` on `under`: maps merge key by key, everything else replaces.
void merge(Node& under, Node&& over) {
  if (under.kind != NodeKind::map || over.kind != NodeKind::map) {
    under = std::move(over);
    return;
  }
  for (Node& child : over.children) {
    if (Node* existing = under.find(child.key)) {
      merge(*existing, std::move(child));
    } else {
      under.children.push_back(std::move(child));
    }
  }
  under.place = over.place;
  under.key_place = over.key_place;
}

class Loader {
 public:
  explicit Loader(Problems& problems) : problems_(problems) {}

  Document load(const std::string& path, const std::vector<std::string>& overrides) {
    load_file(path, Place{.text = "", .shown = "", .source = 0, .line = 0});
    for (const std::string& text : overrides) apply(text);
    return std::move(document_);
  }

 private:
  // Loads a file over its bases; `named_at` is the place that names it.
  void load_file(const std::string& path, const Place& named_at) {
    std::string reason;
    const std::optional<std::string> text = read_text(path, reason);
    if (!text) {
      const std::string_view key = named_at.text.empty() ? "" : kBaseKey;
      problems_.add(named_at, key, fmt::format("cannot read '{}': {}", path, reason));
      document_.complete = false;
      return;
    }
    const Source source{.name = path, .shown_path = "", .number = next_source_++};
    std::optional<Node> root = parse_yaml(*text, source, "", problems_, &document_.complete);
    if (!root || root->kind == NodeKind::null) return;
    if (root->kind != NodeKind::map) {
      problems_.add(root->place, "",
                    fmt::format("expects keys and values at the top, got {}", describe(*root)));
      document_.complete = false;
      return;
    }
    chain_.push_back(path);
    for (auto child = root->children.begin(); child != root->children.end(); ++child) {
      if (child->key != kBaseKey) continue;
      load_base(path, *child);
      root->children.erase(child);
      break;
    }
    merge(document_.root, std::move(*root));
  }

  void load_base(const std::string& path, const Node& base) {
    if (base.kind != NodeKind::scalar || base.scalar.text.empty()) {
      problems_.add(base.place, kBaseKey,
                    fmt::format("expects the path of a file, got {}", describe(base)));
      document_.complete = false;
      return;
    }
    namespace fs = std::filesystem;
    const fs::path named = (fs::path(path).parent_path() / base.scalar.text).lexically_normal();
    for (const std::string& child : chain_) {
      std::error_code error;
      if (!fs::equivalent(child, named, error) || error) continue;
      std::string circle;
      for (const std::string& link : chain_) circle += link + " -> ";
      problems_.add(
          base.place, kBaseKey,
          fmt::format("a config cannot inherit from itself: {}{}", circle, named.string()));
      document_.complete = false;
      return;
    }
    load_file(named.string(), base.place);
  }

  void apply(const std::string& text) {
    const size_t equals = text.find('=');
    Source source{.name = "--set " + text,
                  .shown_path = text.substr(0, equals),
                  .number = kFirstOverride + overrides_++,
                  .is_file = false};
    const std::string& path = source.shown_path;
    if (equals == std::string::npos) {
      problems_.add(source.at(0), path, "expects KEY=VALUE, as in model.layers=12");
      return;
    }
    std::vector<std::string> keys;
    for (size_t begin = 0; begin <= path.size();) {
      const size_t end = std::min(path.find('.', begin), path.size());
      keys.push_back(path.substr(begin, end - begin));
      begin = end + 1;
    }
    for (const std::string& key : keys) {
      if (!key.empty()) continue;
      problems_.add(source.at(0), path, "the key path has an empty part");
      return;
    }
    if (keys[0] == kBaseKey) {
      problems_.add(source.at(0), path, "a base can only be named in a file");
      return;
    }
    bool valid = true;
    Node node;
    if (equals + 1 < text.size()) {
      node.kind = NodeKind::null;
      auto value = parse_yaml(text.substr(equals + 1), source, path, problems_, &valid);
      if (!valid) {
        document_.complete = false;
        return;
      }
      if (value) node = std::move(*value);
    } else {
      // A shell swallows the quotes of KEY='', so nothing after the sign is the empty text.
      node.kind = NodeKind::scalar;
      node.scalar.quoted = true;
    }
    node.place = source.at(0);
    for (auto key = keys.rbegin(); key != keys.rend(); ++key) {
      Node parent;
      parent.place = source.at(0);
      node.key = *key;
      node.key_place = source.at(0);
      parent.children.push_back(std::move(node));
      node = std::move(parent);
    }
    merge(document_.root, std::move(node));
  }

  static constexpr int kFirstOverride = 1 << 20;  // after every file
  Problems& problems_;
  Document document_;
  std::vector<std::string> chain_;  // the config, its base, ...: each names the next
  int next_source_ = 0;
  int overrides_ = 0;
};

}  // namespace

Node* Node::find(std::string_view wanted) {
  for (Node& child : children) {
    if (child.key == wanted) return &child;
  }
  return nullptr;
}

std::string describe(const Node& node) {
  switch (node.kind) {
    case NodeKind::null:
      return "nothing";
    case NodeKind::scalar:
      return quote(node.scalar.text);
    case NodeKind::list:
      return "a list";
    case NodeKind::map:
      return "a map";
  }
  return "?";
}

Document load_document(const std::string& path, const std::vector<std::string>& overrides,
                       Problems& problems) {
  return Loader(problems).load(path, overrides);
}

}  // namespace sigtrain
