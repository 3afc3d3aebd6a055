#!/usr/bin/env bash
# Trains vit_cifar10_sigmoid and vit_cifar10_softmax on a GPU, some 3 minutes each on an H100, and compares them. Without arguments it reads
# CIFAR-10's binary version in data/cifar-10-batches-bin; a folder of JPEGs F: --set data.source=image_folder --set "data.train=[F/train]" --set "data.validation=[F/test]"
# usage: scripts/train_cifar_pair.sh [sigmoid] [softmax] [--set KEY=VALUE]...     (default: both)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/train_pair.sh
source scripts/train_pair.sh

settings=()
train_pair vit_cifar10 vit_cifar10 comparison_cifar "$@"
