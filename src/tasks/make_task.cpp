#include "tasks/make_task.h"

#include "config/derived.h"
#include "tasks/image_classification.h"
#include "tasks/language_modeling.h"
#include "tasks/speech_recognition.h"

namespace sigtrain {

std::unique_ptr<Task> make_task(Config& config) {
  ModelConfig& model = config.model;
  switch (config.task) {
    case TaskKind::language_modeling:
      if (model.vocab_size == 0) model.vocab_size = shard_vocab_size(config);
      return std::make_unique<LanguageModeling>(config);
    case TaskKind::image_classification:
      model.seq_len = image_tokens(model.vision);
      if (model.vision.classes == 0) model.vision.classes = count_classes(config);
      return std::make_unique<ImageClassification>(config);
    case TaskKind::speech_recognition:
      model.seq_len = speech_seq_len(config);
      model.vocab_size = Letters(config.data.speech.letters).vocab_size();
      return std::make_unique<SpeechRecognition>(config);
  }
  throw Error("no such task");
}

}  // namespace sigtrain
