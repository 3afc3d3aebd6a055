// Turns documents into token shards.
#pragma once

#include <cstdint>
#include <vector>

#include "data/text_corpus.h"
#include "data/token_shard.h"
#include "data/tokenizer.h"

namespace sigtrain {

/// Encodes the ranges in order into `writer`, the tokenizer's end-of-document id after each, and
/// finishes it. Works on some 16 MiB of text at a time, on all cores; the output does not depend on
/// their number. Throws Error naming file and offset if a document changed since it was checked.
void encode_corpus(const std::vector<TextRange>& ranges, const Tokenizer& tokenizer,
                   TokenShardSetWriter& writer);

}  // namespace sigtrain
