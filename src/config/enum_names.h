// The names of the schema's enumerations, as they are written in YAML, logs and checkpoints.
#pragma once

#include <array>
#include <string_view>
#include <type_traits>

#include "config/schema.h"

namespace sigtrain {

template <typename E>
struct EnumName {
  E value;
  std::string_view name;

  constexpr EnumName(E value, std::string_view name) : value(value), name(name) {}
};

/// Every value of the enumeration E with its name, in the order of declaration.
template <typename E>
inline constexpr std::array<EnumName<E>, 0> kEnumNames{};

template <>
inline constexpr auto kEnumNames<TaskKind> =
    std::array{EnumName{TaskKind::language_modeling, "language_modeling"},
               EnumName{TaskKind::image_classification, "image_classification"},
               EnumName{TaskKind::speech_recognition, "speech_recognition"}};

template <>
inline constexpr auto kEnumNames<AttentionKind> = std::array{
    EnumName{AttentionKind::sigmoid, "sigmoid"}, EnumName{AttentionKind::softmax, "softmax"}};

template <>
inline constexpr auto kEnumNames<NormKind> =
    std::array{EnumName{NormKind::rmsnorm, "rmsnorm"}, EnumName{NormKind::layernorm, "layernorm"}};

template <>
inline constexpr auto kEnumNames<NormStructure> =
    std::array{EnumName{NormStructure::pre, "pre"}, EnumName{NormStructure::post, "post"},
               EnumName{NormStructure::hybrid, "hybrid"}};

template <>
inline constexpr auto kEnumNames<PositionKind> =
    std::array{EnumName{PositionKind::none, "none"},     EnumName{PositionKind::rope, "rope"},
               EnumName{PositionKind::alibi, "alibi"},   EnumName{PositionKind::learned, "learned"},
               EnumName{PositionKind::sincos, "sincos"}, EnumName{PositionKind::cape, "cape"}};

template <>
inline constexpr auto kEnumNames<MlpKind> =
    std::array{EnumName{MlpKind::gelu, "gelu"}, EnumName{MlpKind::relu2, "relu2"},
               EnumName{MlpKind::swiglu, "swiglu"}};

template <>
inline constexpr auto kEnumNames<DecayMode> = std::array{
    EnumName{DecayMode::coupled, "coupled"}, EnumName{DecayMode::decoupled, "decoupled"}};

template <>
inline constexpr auto kEnumNames<RateScale> =
    std::array{EnumName{RateScale::none, "none"}, EnumName{RateScale::mup_simple, "mup_simple"}};

template <>
inline constexpr auto kEnumNames<ScheduleKind> = std::array{
    EnumName{ScheduleKind::constant, "constant"}, EnumName{ScheduleKind::linear, "linear"},
    EnumName{ScheduleKind::cosine, "cosine"}, EnumName{ScheduleKind::wsd, "wsd"}};

template <>
inline constexpr auto kEnumNames<Recompute> =
    std::array{EnumName{Recompute::none, "none"},
               EnumName{Recompute::norms_and_activations, "norms_and_activations"},
               EnumName{Recompute::block, "block"}};

template <>
inline constexpr auto kEnumNames<DataSource> =
    std::array{EnumName{DataSource::text, "text"},
               EnumName{DataSource::synthetic, "synthetic"},
               EnumName{DataSource::image_folder, "image_folder"},
               EnumName{DataSource::cifar10, "cifar10"},
               EnumName{DataSource::idx, "idx"},
               EnumName{DataSource::speech, "speech"}};

template <>
inline constexpr auto kEnumNames<ImagePool> =
    std::array{EnumName{ImagePool::class_token, "class_token"}, EnumName{ImagePool::mean, "mean"}};

template <>
inline constexpr auto kEnumNames<CropKind> =
    std::array{EnumName{CropKind::none, "none"}, EnumName{CropKind::pad, "pad"},
               EnumName{CropKind::resized, "resized"}};

/// The name of an enumeration's value: enum_name(NormStructure::hybrid) is "hybrid".
template <typename E>
requires std::is_enum_v<E>
constexpr std::string_view enum_name(E value) {
  static_assert(!kEnumNames<E>.empty(), "list the names of this enumeration above");
  for (const auto& [known, name] : kEnumNames<E>) {
    if (known == value) return name;
  }
  return "?";
}

}  // namespace sigtrain
