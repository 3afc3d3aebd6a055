// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78; RFC 3720, appendix B.4): the checksum of
// checkpoint files and of TensorBoard records.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sigtrain {

/// The CRC-32C of `bytes` bytes at `data`. To go on with a checksum, pass the value of the bytes
/// before as `previous`. Uses the processor's instruction where the build's target has one.
uint32_t crc32c(const void* data, size_t bytes, uint32_t previous = 0);

}  // namespace sigtrain
