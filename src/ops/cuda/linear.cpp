// Linear layers: cuBLASLt's products, our activations and bias gradients.
#include "kernels/column_sums.h"
#include "kernels/elementwise.h"
#include "ops/cuda/check.h"
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/pointers.h"
#include "ops/cuda/scratch.h"

namespace sigtrain {
namespace {

/// For the sums over rows of dy [rows, out] and of dx [rows, in].
struct BiasPartials {
  BiasPartials() = default;
  BiasPartials(Scratch& scratch, int64_t rows, int64_t in, int64_t out)
      : of_dy(scratch.take<float>(kernels::column_sum_partials(rows, out))),
        of_dx(scratch.take<float>(kernels::activation_backward_partials(rows, in))) {}
  float *of_dy = nullptr, *of_dx = nullptr;
};

}  // namespace

// cuBLASLt's GELU epilogues compute the tanh approximation, which differs from the exact GELU by up
// to 5e-4 and so from the CPU's results and from published weights. The bias is added in the
// product, and the activation is a pass of its own over the pre-activation that backward needs
// anyway.
void CudaOps::linear_forward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                             Activation activation, const Tensor& pre_activation, const Tensor& y) {
  const int64_t rows = x.rows(), in = weight.columns(), out = weight.rows();
  const Tensor& z = activation == Activation::none ? y : pre_activation;
  MatmulCall product;
  product.transpose_b = true;
  product.m = rows, product.n = out, product.k = in;
  product.a = bf16_pointer(x), product.lda = in;
  product.b = bf16_pointer(weight), product.ldb = in;
  product.c = bf16_pointer(z), product.ldc = out;
  product.bias = bf16_pointer(bias);
  (*matmul_)(product);
  if (activation != Activation::none) activation_forward(activation, z, y);
}

void CudaOps::activation_forward(Activation activation, const Tensor& x, const Tensor& y) {
  switch (activation) {
    case Activation::none:
      throw Error("activation_forward needs an activation");
    case Activation::gelu:
      kernels::gelu_forward(bf16_pointer(x), bf16_pointer(y), y.numel(), stream_);
      break;
    case Activation::relu2:
      kernels::relu2_forward(bf16_pointer(x), bf16_pointer(y), y.numel(), stream_);
      break;
  }
  check_launch("activation_forward");
}

void CudaOps::linear_backward(const Tensor& x, const Tensor& weight, const Tensor& dy,
                              Activation activation, const Tensor& pre_activation, const Tensor& dx,
                              const Tensor& dweight, const Tensor& dbias,
                              const Tensor& dbias_before) {
  const int64_t rows = x.rows(), in = weight.columns(), out = weight.rows();
  BiasPartials partials;
  if (dbias || dbias_before) {
    Scratch scratch(workspace_, "linear_backward");
    partials = BiasPartials(scratch, rows, in, out);
  }
  if (dx) {
    MatmulCall product;
    product.m = rows, product.n = in, product.k = out;
    product.a = bf16_pointer(dy), product.lda = out;
    product.b = bf16_pointer(weight), product.ldb = in;
    product.c = bf16_pointer(dx), product.ldc = in;
    (*matmul_)(product);
    switch (activation) {
      case Activation::none:
        break;
      case Activation::gelu:
        kernels::gelu_backward(bf16_pointer(pre_activation), bf16_pointer(dx), rows, in,
                               dbias_before.as<float>(), partials.of_dx, stream_);
        break;
      case Activation::relu2:
        kernels::relu2_backward(bf16_pointer(pre_activation), bf16_pointer(dx), rows, in,
                                dbias_before.as<float>(), partials.of_dx, stream_);
        break;
    }
  }
  MatmulCall product;
  product.transpose_a = true;
  product.m = out, product.n = in, product.k = rows;
  product.a = bf16_pointer(dy), product.lda = out;
  product.b = bf16_pointer(x), product.ldb = in;
  product.c = dweight.as<float>(), product.ldc = in;
  product.c_is_float = true;
  product.accumulate = true;
  (*matmul_)(product);
  if (dbias) {
    kernels::add_column_sums(bf16_pointer(dy), rows, out, dbias.as<float>(), partials.of_dy,
                             stream_);
  }
  check_launch("linear_backward");
}

size_t CudaOps::linear_backward_workspace(int64_t rows, int64_t in, int64_t out) const {
  Scratch scratch;
  BiasPartials(scratch, rows, in, out);
  return scratch.bytes();
}

}  // namespace sigtrain
