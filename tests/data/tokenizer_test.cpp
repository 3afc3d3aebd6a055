#include "data/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <unordered_map>

#include "core/error.h"
#include "data/sentencepiece_tokenizer.h"
#include "data/sentencepiece_trainer.h"
#include "temporary_folder.h"

namespace sigtrain {
namespace {

using testing::HasSubstr;

std::string sample_text() {
  std::string text;
  for (int i = 0; i < 200; ++i) {
    text += fmt::format("The {} quick foxes jump over the lazy dog, line {}.\n", i % 7, i);
    text += "    return value;  // two  spaces\n\n";
    text +=
        "Gr\xC3\xBC\xC3\x9F"
        "e aus K\xC3\xB6ln\n";
  }
  return text;
}

std::string train(int64_t size) {
  const std::string text = sample_text();
  SentencePieceTrainer trainer(text.size());
  trainer.add(text);
  return trainer.train(size);
}

const std::string& model() {
  static const std::string model = train(400);
  return model;
}

const std::vector<std::string>& texts() {
  static const std::vector<std::string> texts = {
      "",
      "a",
      "\n",
      " ",
      "  two  spaces  and trailing   ",
      "line\n\n\nlines\r\n\ttab\n",
      std::string("nul\0byte", 8),
      "e\xCC\x81 \xC3\xA9 \xEF\xAC\x81 \xE2\x84\xAB \xEF\xBC\xA1",         // what NFKC would change
      "\xE2\x96\x81 \xE2\x96\x81\xE2\x96\x81x \xE2\x96\x85 \xE2\x81\x87",  // the library's own
                                                                           // symbols
      "<s></s><unk><pad><0x0A> \xEF\xBF\xBD",
      "\xF0\x9F\x98\x80 \xE4\xBD\xA0\xE5\xA5\xBD \xEF\xBB\xBF"
      "bom \xF4\x8F\xBF\xBF \xC2\xA0 \xE3\x80\x80",
      sample_text(),
  };
  return texts;
}

void expect_round_trips(const Tokenizer& tokenizer) {
  for (const std::string& text : texts()) {
    const auto ids = tokenizer.encode(text);
    EXPECT_EQ(tokenizer.decode(ids), text);
    for (const int32_t id : ids) {
      ASSERT_GE(id, 0);
      ASSERT_LT(id, tokenizer.vocab_size());
      ASSERT_NE(id, tokenizer.eos_id());
    }
  }
}

TEST(ByteTokenizer, RoundTripsAndSeparatesDocuments) {
  const auto tokenizer = make_tokenizer("bytes");
  expect_round_trips(*tokenizer);
  EXPECT_EQ(tokenizer->encode("A\xFF"), (std::vector<int32_t>{0x41, 0xFF}));
  EXPECT_EQ(tokenizer->decode(std::vector<int32_t>{0x41, 256, 0x42}), "AB");
  EXPECT_EQ(tokenizer->vocab_size(), 257);
  EXPECT_EQ(tokenizer->hash(), 0xc4aeb31f98b5abaau);
  EXPECT_THAT(message_of<Error>([&] { tokenizer->decode(std::vector<int32_t>{257}); }),
              HasSubstr("token 257 is outside the vocabulary of 257"));
}

TEST(SentencePieceTokenizer, RoundTrips) {
  const SentencePieceTokenizer tokenizer("test", model());
  EXPECT_EQ(tokenizer.vocab_size(), 400);
  expect_round_trips(tokenizer);
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{tokenizer.eos_id()}), "");
  EXPECT_LT(tokenizer.encode(sample_text()).size(), sample_text().size() / 3);
}

TEST(SentencePieceTokenizer, EveryCharacterRoundTrips) {
  const SentencePieceTokenizer tokenizer("test", model());
  std::string text;
  for (uint32_t c = 0; c < 0x10000; c += (c < 0x3100 ? 1 : 37)) {
    if (c >= 0xD800 && c < 0xE000) continue;
    if (c < 0x80) {
      text += static_cast<char>(c);
    } else if (c < 0x800) {
      text += static_cast<char>(0xC0 | c >> 6);
      text += static_cast<char>(0x80 | (c & 63));
    } else {
      text += static_cast<char>(0xE0 | c >> 12);
      text += static_cast<char>(0x80 | (c >> 6 & 63));
      text += static_cast<char>(0x80 | (c & 63));
    }
  }
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
}

TEST(SentencePieceTokenizer, MayBeCutAfterAnyNewline) {
  const SentencePieceTokenizer tokenizer("test", model());
  const std::string text = "The quick\n\n    return value;\n  foxes\n";
  const auto whole = tokenizer.encode(text);
  for (size_t cut = text.find('\n'); cut != text.npos; cut = text.find('\n', cut + 1)) {
    auto parts = tokenizer.encode(text.substr(0, cut + 1));
    const auto rest = tokenizer.encode(text.substr(cut + 1));
    parts.insert(parts.end(), rest.begin(), rest.end());
    EXPECT_EQ(parts, whole) << cut;
  }
}

TEST(SentencePieceTokenizer, RejectsTextThatIsNotUtf8) {
  const SentencePieceTokenizer tokenizer("test", model());
  EXPECT_THAT(message_of<Error>([&] { tokenizer.encode("ab\xFF"); }), HasSubstr("byte 2: 0xFF"));
}

TEST(SentencePieceTokenizer, HashIsOfTheVocabulary) {
  EXPECT_EQ(SentencePieceTokenizer("a", model()).hash(),
            SentencePieceTokenizer("b", model()).hash());
  EXPECT_NE(SentencePieceTokenizer("a", model()).hash(),
            SentencePieceTokenizer("a", train(401)).hash());
}

/// A model as the library makes it, but for these options.
std::string model_with(const std::unordered_map<std::string, std::string>& changes) {
  class Lines : public sentencepiece::SentenceIterator {
   public:
    bool done() const override { return left_ == 0; }
    void Next() override { --left_; }
    const std::string& value() const override { return line_; }
    sentencepiece::util::Status status() const override { return {}; }

   private:
    int left_ = 10;
    std::string line_ = "some words of a text";
  } lines;
  std::unordered_map<std::string, std::string> options = {{"model_type", "bpe"},
                                                          {"vocab_size", "280"},
                                                          {"byte_fallback", "true"},
                                                          {"normalization_rule_name", "identity"},
                                                          {"minloglevel", "2"},
                                                          {"remove_extra_whitespaces", "false"},
                                                          {"bos_id", "-1"},
                                                          {"add_dummy_prefix", "false"},
                                                          {"eos_id", "1"}};
  for (const auto& [key, value] : changes) options[key] = value;
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(options, &lines, &model);
  if (!status.ok()) throw std::runtime_error(status.ToString());
  return model;
}

TEST(SentencePieceTokenizer, RejectsModelsThatLoseText) {
  SentencePieceTokenizer("good", model_with({}));
  const auto message = [](const std::unordered_map<std::string, std::string>& changes) {
    return message_of<Error>([&] { SentencePieceTokenizer("own.model", model_with(changes)); });
  };
  for (const auto& [key, value] :
       std::unordered_map<std::string, std::string>{{"normalization_rule_name", "nmt_nfkc"},
                                                    {"remove_extra_whitespaces", "true"},
                                                    {"add_dummy_prefix", "true"}}) {
    EXPECT_THAT(message({{key, value}}), HasSubstr("own.model: the model normalises text")) << key;
  }
  EXPECT_THAT(message({{"byte_fallback", "false"}, {"vocab_size", "25"}}),
              HasSubstr("own.model: the model has no byte pieces"));
  EXPECT_THAT(message({{"eos_id", "-1"}}),
              HasSubstr("own.model: the model has no end-of-sentence"));
}

TEST(SentencePieceTrainer, IsDeterministic) { EXPECT_EQ(train(400), model()); }

TEST(SentencePieceTrainer, DoesNotDependOnHowTextIsCutIntoPieces) {
  const std::string text = sample_text();
  SentencePieceTrainer trainer(text.size());
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin) + 1;
    trainer.add(std::string_view(text).substr(begin, end - begin));
    begin = end;
  }
  EXPECT_EQ(trainer.train(400), model());
}

TEST(SentencePieceTrainer, SamplesLinesOfALargeText) {
  const std::string text = sample_text();
  const auto sampled = [&] {
    SentencePieceTrainer trainer(text.size(), text.size() / 2);
    trainer.add(text);
    return trainer.train(350);
  };
  EXPECT_EQ(sampled(), sampled());
  EXPECT_NE(SentencePieceTokenizer("a", sampled()).hash(),
            SentencePieceTokenizer("a", train(350)).hash());
}

TEST(SentencePieceTrainer, LearnsFromLinesBeyondTheLibrarysLimit) {
  std::string text;
  for (int i = 0; i < 3000; ++i) text += "abracadabra simsalabim\t";
  SentencePieceTrainer trainer(text.size());
  trainer.add(text);
  const SentencePieceTokenizer tokenizer("long", trainer.train(280));
  EXPECT_LE(tokenizer.encode("abracadabra simsalabim").size(), 8u);
}

TEST(SentencePieceTrainer, RefusesImpossibleSizes) {
  EXPECT_THAT(message_of<UsageError>([] { train(258); }),
              HasSubstr("a vocabulary of 258 pieces is impossible"));
  EXPECT_THAT(message_of<UsageError>([] { train(100000); }),
              HasSubstr("Please set it to a value <="));
  EXPECT_THAT(message_of<UsageError>([] { train(265); }), HasSubstr("smaller than required_chars"));
  EXPECT_THAT(message_of<UsageError>([] { SentencePieceTrainer(0).train(300); }),
              HasSubstr("no text"));
}

TEST(MakeTokenizer, ExplainsWhatItCannotMake) {
  const TemporaryFolder folder;
  EXPECT_EQ(message_of<UsageError>([] { make_tokenizer("gpt2"); }),
            "unknown tokenizer 'gpt2': give \"bytes\" or the path of a SentencePiece .model");
  EXPECT_THAT(message_of<Error>([&] { make_tokenizer(folder / "none.model"); }),
              HasSubstr("none.model: cannot open"));
  write_text(folder / "empty.model", "");
  EXPECT_THAT(message_of<Error>([&] { make_tokenizer(folder / "empty.model"); }),
              HasSubstr("empty.model: the tokenizer model is empty"));
  write_text(folder / "bad.model", "This is no model.");
  EXPECT_THAT(message_of<Error>([&] { make_tokenizer(folder / "bad.model"); }),
              HasSubstr("bad.model: not a SentencePiece model"));
  write_text(folder / "good.model", model());
  EXPECT_EQ(make_tokenizer(folder / "good.model")->name(), folder / "good.model");
  write_text(folder / "cut.model", model().substr(0, model().size() / 2));
  EXPECT_THROW(make_tokenizer(folder / "cut.model"), Error);
}

}  // namespace
}  // namespace sigtrain
