// Reading the golden values of tests/golden and comparing with them. make_golden.py there says what
// the files hold.
#pragma once

#include <bit>
#include <span>
#include <string>

#include "core/safetensors.h"
#include "nn/parameters.h"
#include "ops/op_testing.h"

namespace sigtrain {

inline std::string golden_path(const std::string& file) {
  return std::string(SIGTRAIN_SOURCE_DIR) + "/tests/golden/" + file;
}

/// One of the golden files. What it does not hold is an Error.
class GoldenFile {
 public:
  explicit GoldenFile(const std::string& file) : reader_(golden_path(file)) {}

  const std::vector<SafetensorsEntry>& entries() const { return reader_.entries(); }
  bool has(const std::string& name) const { return reader_.find(name) != nullptr; }

  /// A floating tensor: bf16 in the file for inputs, which every Real holds exactly, f64 else.
  template <typename Real>
  Buffer<Real> read(const std::string& name) const {
    const SafetensorsEntry& entry = find(name);
    Buffer<Real> result(entry.shape);
    if (entry.dtype == DType::bf16) {
      std::vector<uint16_t> bits(result.values.size());
      reader_.read(name, {bits.data(), DType::bf16, entry.shape});
      for (size_t i = 0; i < bits.size(); ++i)
        result.values[i] = std::bit_cast<float>(static_cast<uint32_t>(bits[i]) << 16);
    } else {
      Buffer<double> wide(entry.shape);
      reader_.read(name, wide);
      result.values.assign(wide.values.begin(), wide.values.end());
    }
    return result;
  }
  /// The same, or an absent buffer.
  template <typename Real>
  Buffer<Real> read_if(const std::string& name) const {
    return has(name) ? read<Real>(name) : Buffer<Real>();
  }
  Buffer<uint8_t> bytes(const std::string& name) const {
    Buffer<uint8_t> result(find(name).shape);
    reader_.read(name, result);
    return result;
  }
  Buffer<int32_t> integers(const std::string& name) const {
    Buffer<int32_t> result(find(name).shape);
    reader_.read(name, result);
    return result;
  }

 private:
  const SafetensorsEntry& find(const std::string& name) const {
    const SafetensorsEntry* entry = reader_.find(name);
    if (!entry) throw Error("{} has no tensor {}", reader_.path().string(), name);
    return *entry;
  }

  SafetensorsReader reader_;
};

/// Relative error that `roundings` roundings in a row may reach: the same number of them for float
/// and double.
template <typename Real>
constexpr double tolerance(double roundings) {
  return roundings * 0.5 * static_cast<double>(std::numeric_limits<Real>::epsilon());
}

/// Expects max |actual - expected| within tolerance of max |expected|.
template <typename Real>
void expect_close(const Buffer<Real>& actual, const Buffer<double>& expected, double roundings,
                  const std::string& name) {
  ASSERT_EQ(actual.size(), expected.size()) << name;
  EXPECT_LE(relative_error(actual, expected), tolerance<Real>(roundings)) << name;
}

/// Compares with NAME or, where the file has its products instead, those of `actual` with cos(0, 1,
/// 2, ...) from the right (NAME.rows) and from the left (NAME.columns).
template <typename Real>
void expect_golden(const GoldenFile& golden, const std::string& name, const Buffer<Real>& actual,
                   double roundings) {
  if (golden.has(name)) return expect_close(actual, golden.read<double>(name), roundings, name);
  const Buffer<double> rows = golden.read<double>(name + ".rows");
  const Buffer<double> columns = golden.read<double>(name + ".columns");
  ASSERT_EQ(actual.size(), rows.size() * columns.size()) << name;
  Buffer<double> actual_rows(rows.shape), actual_columns(columns.shape);
  std::fill(actual_rows.values.begin(), actual_rows.values.end(), 0.0);
  std::fill(actual_columns.values.begin(), actual_columns.values.end(), 0.0);
  for (int64_t i = 0; i < rows.size(); ++i) {
    for (int64_t j = 0; j < columns.size(); ++j) {
      const double value = actual[i * columns.size() + j];
      actual_rows[i] += value * std::cos(static_cast<double>(j));
      actual_columns[j] += value * std::cos(static_cast<double>(i));
    }
  }
  // The products were taken in double: what counts is the rounding of `actual`.
  EXPECT_LE(relative_error(actual_rows, rows), tolerance<Real>(roundings)) << name << ".rows";
  EXPECT_LE(relative_error(actual_columns, columns), tolerance<Real>(roundings))
      << name << ".columns";
}

/// Sets the weights of a small model to the file's weight.NAME. The file's parameters must be the
/// model's: names and shapes.
template <typename Real, typename Model>
void load_golden_weights(const GoldenFile& golden, Model& model) {
  int64_t in_file = 0;
  for (const SafetensorsEntry& entry : golden.entries())
    in_file += entry.name.starts_with("weight.");
  EXPECT_EQ(in_file, model.tensors());
  for (ParameterId id = 0; id < model.tensors(); ++id) {
    const Parameter& parameter = model.table()[id];
    const Buffer<Real> values = golden.read<Real>("weight." + parameter.name);
    ASSERT_EQ(values.shape, parameter.shape) << parameter.name;
    std::copy(values.values.begin(), values.values.end(), model.weight(id).begin());
  }
}

/// Compares a value of each of a small model's parameters, values(id), with PREFIX.NAME.
template <typename Real, typename Model, typename Values>
void expect_golden_parameters(const GoldenFile& golden, const std::string& prefix, Model& model,
                              double roundings, const Values& values) {
  for (ParameterId id = 0; id < model.tensors(); ++id) {
    const std::span<const Real> found = values(id);
    Buffer<Real> actual(model.table()[id].shape);
    actual.values.assign(found.begin(), found.end());
    expect_golden(golden, prefix + "." + model.table()[id].name, actual, roundings);
  }
}

}  // namespace sigtrain
