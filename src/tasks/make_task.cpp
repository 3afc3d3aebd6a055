#include "tasks/make_task.h"

#include "config/derived.h"
#include "data/missing_data.h"
#include "tasks/image_classification.h"
#include "tasks/language_modeling.h"
#include "tasks/speech_recognition.h"

namespace sigtrain {
namespace {

/// Of data that are looked into for the value of `key`.
void require_data(const DataConfig& data, std::string_view key) {
  const std::string missing = describe_missing_data(data);
  if (missing.empty()) return;
  throw UsageError("{}\n{} is 0, which takes it from the data: to do without them, set it", missing,
                   key);
}

}  // namespace

std::unique_ptr<Task> make_task(Config& config) {
  ModelConfig& model = config.model;
  switch (config.task) {
    case TaskKind::language_modeling:
      if (model.vocab_size == 0) {
        require_data(config.data, "model.vocab_size");
        model.vocab_size = shard_vocab_size(config);
      }
      return std::make_unique<LanguageModeling>(config);
    case TaskKind::image_classification:
      model.seq_len = image_tokens(model.vision);
      if (model.vision.classes == 0) {
        require_data(config.data, "model.vision.classes");
        model.vision.classes = count_classes(config);
      }
      return std::make_unique<ImageClassification>(config);
    case TaskKind::speech_recognition:
      model.seq_len = speech_seq_len(config);
      model.vocab_size = Letters(config.data.speech.letters).vocab_size();
      return std::make_unique<SpeechRecognition>(config);
  }
  throw Error("no such task");
}

}  // namespace sigtrain
