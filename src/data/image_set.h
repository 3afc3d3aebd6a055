// A set of labelled images, wherever they come from.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "config/schema.h"
#include "data/image_decoder.h"

namespace sigtrain {

/// Images 0 ... size() - 1. Everything is const and safe to call from many threads.
class ImageSet {
 public:
  virtual ~ImageSet() = default;

  virtual int64_t size() const = 0;
  /// In the order of their labels.
  virtual const std::vector<std::string>& class_names() const = 0;
  virtual int32_t label(int64_t index) const = 0;
  /// What messages call it.
  virtual std::string name(int64_t index) const = 0;
  /// Throws DamagedImage for a damaged one, Error where the file cannot be read.
  virtual DecodedPart read(int64_t index, int64_t channels, const ChoosePart& choose) const = 0;
  /// A number that another set, or this one with other files or labels, is unlikely to have.
  virtual uint64_t fingerprint() const = 0;
};

/// The images at `paths`, data.train or data.validation of a config. Throws UsageError or Error
/// saying what is wrong with them: a class without images, a label that is not below `classes` (0:
/// any may be), images of other channels than the model's.
std::unique_ptr<ImageSet> open_image_set(DataSource source, const std::vector<std::string>& paths,
                                         int64_t channels, int64_t classes);

/// Throws UsageError if one of the classes has no image in the set: what is to be learned of it?
void check_classes_have_images(const ImageSet& images);

}  // namespace sigtrain
