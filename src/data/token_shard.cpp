#include "data/token_shard.h"

#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <limits>
#include <utility>

#include "core/error.h"
#include "core/file_io.h"

namespace sigtrain {
namespace {

// The file is little-endian and so is every machine this is built for; the structure is the header.
static_assert(std::endian::native == std::endian::little);

constexpr char kMagic[8] = {'S', 'I', 'G', 'T', 'O', 'K', 'E', 'N'};
constexpr uint32_t kVersion = 1;

struct Header {
  char magic[8];
  uint32_t version;
  uint32_t token_bytes;
  uint64_t vocab_size;
  uint64_t vocab_hash;
  uint64_t tokens;
  uint64_t token_checksum;
  uint64_t reserved;
  uint64_t header_checksum;
};
static_assert(sizeof(Header) == 64 && offsetof(Header, vocab_size) == 16 &&
              offsetof(Header, header_checksum) == 56);

uint64_t checksum_of(const Header& header) {
  Fnv64 checksum;
  checksum.add_bytes(&header, offsetof(Header, header_checksum));
  return checksum.value();
}

int width_of(int64_t vocab_size) {
  return vocab_size <= 1 + int64_t{std::numeric_limits<uint16_t>::max()} ? 2 : 4;
}

constexpr const char* kRemedy = "write it again with tokenize";

}  // namespace

TokenShard::TokenShard(const std::string& path) : file_(path) {
  const auto bytes = file_.bytes();
  if (bytes.empty()) throw Error("{}: empty file (offset 0); {}", path, kRemedy);
  if (bytes.size() < sizeof(Header)) {
    throw Error("{}: truncated at offset {}: the header has {} bytes; {}", path, bytes.size(),
                sizeof(Header), kRemedy);
  }
  Header header;
  std::memcpy(&header, bytes.data(), sizeof(Header));
  if (std::memcmp(header.magic, kMagic, sizeof(kMagic)) != 0) {
    throw Error(
        "{}: not a token shard (offset 0 does not hold \"SIGTOKEN\"); build/tokenize makes shards "
        "of text",
        path);
  }
  if (header.version != kVersion) {
    throw Error("{}: offset {}: version {} of the format, this program reads version {}; {}", path,
                offsetof(Header, version), header.version, kVersion, kRemedy);
  }
  if (header.header_checksum != checksum_of(header)) {
    throw Error("{}: the header was altered (its checksum at offset {} does not match); {}", path,
                offsetof(Header, header_checksum), kRemedy);
  }
  // From here on the checksum holds, so what is wrong was written wrong, by another program
  // perhaps.
  if (header.vocab_size == 0 || header.vocab_size > uint64_t{1} << 31) {
    throw Error("{}: offset {}: a vocabulary of {} ids is impossible", path,
                offsetof(Header, vocab_size), header.vocab_size);
  }
  if (header.token_bytes != static_cast<uint32_t>(width_of(int64_t(header.vocab_size)))) {
    throw Error("{}: offset {}: {} bytes a token, where a vocabulary of {} ids takes {}", path,
                offsetof(Header, token_bytes), header.token_bytes, header.vocab_size,
                width_of(int64_t(header.vocab_size)));
  }
  if (header.tokens == 0) {
    throw Error("{}: offset {}: the shard holds no tokens; {}", path, offsetof(Header, tokens),
                kRemedy);
  }
  const uint64_t available = (bytes.size() - sizeof(Header)) / header.token_bytes;
  if (available < header.tokens) {
    throw Error("{}: truncated at offset {}: the header promises {} tokens, the file holds {}; {}",
                path, bytes.size(), header.tokens, available, kRemedy);
  }
  const uint64_t expected = sizeof(Header) + header.tokens * header.token_bytes;
  if (bytes.size() != expected) {
    throw Error("{}: {} bytes follow the last token at offset {}; {}", path,
                bytes.size() - expected, expected, kRemedy);
  }
  vocabulary_ = {static_cast<int64_t>(header.vocab_size), header.vocab_hash};
  size_ = static_cast<int64_t>(header.tokens);
  width_ = static_cast<int>(header.token_bytes);
  checksum_ = header.token_checksum;
}

void TokenShard::read(int64_t begin, std::span<int32_t> out) const {
  const auto count = static_cast<int64_t>(out.size());
  if (begin < 0 || count > size_ || begin > size_ - count) {
    throw Error("{}: tokens [{}, {}) requested of {}", path(), begin, begin + count, size_);
  }
  const std::byte* source = file_.bytes().data() + sizeof(Header) + begin * width_;
  uint32_t highest = 0;
  const auto copy = [&](const auto* tokens) {
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t token = tokens[i];
      highest = std::max(highest, token);
      out[static_cast<size_t>(i)] = static_cast<int32_t>(token);
    }
  };
  if (width_ == 2) {
    copy(reinterpret_cast<const uint16_t*>(source));
  } else {
    copy(reinterpret_cast<const uint32_t*>(source));
  }
  if (highest < static_cast<uint64_t>(vocabulary_.size)) return;
  for (int64_t i = 0; i < count; ++i) {
    const auto token = static_cast<uint32_t>(out[static_cast<size_t>(i)]);
    if (token < static_cast<uint64_t>(vocabulary_.size)) continue;
    const int64_t at = begin + i;
    throw Error("{}: token {} (offset {}) has the id {}, outside its vocabulary of {}; {}", path(),
                at, sizeof(Header) + static_cast<uint64_t>(at * width_), token, vocabulary_.size,
                kRemedy);
  }
}

void TokenShard::verify() const {
  std::vector<int32_t> tokens;
  constexpr int64_t kBlock = 1 << 16;
  for (int64_t begin = 0; begin < size_; begin += kBlock) {
    tokens.resize(static_cast<size_t>(std::min(kBlock, size_ - begin)));
    read(begin, tokens);
  }
  Fnv64 checksum;
  checksum.add_bytes(file_.bytes().data() + sizeof(Header), static_cast<size_t>(size_ * width_));
  if (checksum.value() != checksum_) {
    throw Error(
        "{}: the tokens from offset {} on were altered (the checksum at offset {} does not "
        "match); {}",
        path(), sizeof(Header), offsetof(Header, token_checksum), kRemedy);
  }
}

TokenShardWriter::TokenShardWriter(std::string path, Vocabulary vocabulary)
    : path_(std::move(path)),
      temporary_(path_ + ".partial"),
      vocabulary_(vocabulary),
      width_(width_of(vocabulary.size)) {
  if (vocabulary.size < 1 || vocabulary.size > int64_t{1} << 31) {
    throw Error("{}: a vocabulary of {} ids is impossible", path_, vocabulary.size);
  }
  file_ = std::fopen(temporary_.c_str(), "wbe");
  if (file_ == nullptr) throw Error("{}: cannot create: {}", temporary_, std::strerror(errno));
  const Header placeholder{};
  write(&placeholder, sizeof(placeholder));
}

TokenShardWriter::~TokenShardWriter() {
  if (file_ == nullptr) return;
  std::fclose(file_);
  std::remove(temporary_.c_str());
}

void TokenShardWriter::write(const void* data, size_t bytes) {
  if (std::fwrite(data, 1, bytes, file_) != bytes) {
    throw Error("{}: cannot write at offset {}: {}", temporary_, size_ * width_,
                std::strerror(errno));
  }
}

void TokenShardWriter::append(std::span<const int32_t> tokens) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= vocabulary_.size) {
      throw Error("{}: token {} has the id {}, outside the vocabulary of {}", path_,
                  size_ + static_cast<int64_t>(i), tokens[i], vocabulary_.size);
    }
  }
  const void* data = tokens.data();
  const size_t bytes = tokens.size() * static_cast<size_t>(width_);
  if (width_ == 2) {
    narrow_.assign(tokens.begin(), tokens.end());
    data = narrow_.data();
  }
  checksum_.add_bytes(data, bytes);
  write(data, bytes);
  size_ += static_cast<int64_t>(tokens.size());
}

void TokenShardWriter::finish() {
  if (size_ == 0) throw Error("{}: no tokens to write", path_);
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  header.version = kVersion;
  header.token_bytes = static_cast<uint32_t>(width_);
  header.vocab_size = static_cast<uint64_t>(vocabulary_.size);
  header.vocab_hash = vocabulary_.hash;
  header.tokens = static_cast<uint64_t>(size_);
  header.token_checksum = checksum_.value();
  header.header_checksum = checksum_of(header);
  const bool written = std::fseek(file_, 0, SEEK_SET) == 0 &&
                       std::fwrite(&header, 1, sizeof(header), file_) == sizeof(header) &&
                       std::fflush(file_) == 0 && ::fsync(::fileno(file_)) == 0;
  if (!written) throw Error("{}: cannot write: {}", temporary_, std::strerror(errno));
  if (std::fclose(std::exchange(file_, nullptr)) != 0 ||
      std::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const int error = errno;
    std::remove(temporary_.c_str());
    throw Error("{}: cannot write: {}", path_, std::strerror(error));
  }
  sync_folder(std::filesystem::path(path_).parent_path());
}

TokenShardSetWriter::TokenShardSetWriter(std::filesystem::path folder, Vocabulary vocabulary,
                                         int64_t shard_tokens)
    : folder_(std::move(folder)), vocabulary_(vocabulary), shard_tokens_(shard_tokens) {
  if (shard_tokens < 1) throw UsageError("a shard of {} tokens is impossible", shard_tokens);
  std::error_code error;
  std::filesystem::create_directories(folder_, error);
  if (error) throw Error("{}: cannot make the folder: {}", folder_.string(), error.message());
}

void TokenShardSetWriter::append(std::span<const int32_t> tokens) {
  while (!tokens.empty()) {
    if (!writer_) {
      const std::string name = fmt::format("shard_{:06}.tok", shards_++);
      writer_ = std::make_unique<TokenShardWriter>((folder_ / name).string(), vocabulary_);
    }
    const auto room = static_cast<size_t>(shard_tokens_ - writer_->size());
    const auto part = tokens.first(std::min(room, tokens.size()));
    writer_->append(part);
    tokens_ += static_cast<int64_t>(part.size());
    tokens = tokens.subspan(part.size());
    if (writer_->size() == shard_tokens_) finish();
  }
}

void TokenShardSetWriter::finish() {
  if (!writer_) return;
  writer_->finish();
  writer_.reset();
}

}  // namespace sigtrain
