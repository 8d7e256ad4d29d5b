#!/bin/sh
# Collects real files as the first inputs of every target, and trains the run that `checkpoint`
# starts from.
set -eu
cd "$(dirname "$0")/.."
corpus=fuzz/corpus
mkdir -p "$corpus"/config "$corpus"/manifest "$corpus"/checkpoint "$corpus"/idx "$corpus"/cifar \
    "$corpus"/tar "$corpus"/image "$corpus"/weights

for file in configs/*/*.toml; do
    cp "$file" "$corpus/config/$(basename "$(dirname "$file")")-$(basename "$file")"
done
printf 'model.width=0.5' > "$corpus/config/override"
cp tests/fixtures/images/*.gif tests/fixtures/images/*.jpg tests/fixtures/images/*.png \
    tests/fixtures/images/*.webp tests/fixtures/images/*.bmp tests/fixtures/images/*.tif* "$corpus/image"
cp tests/fixtures/checkpoints/*.pth* "$corpus/weights"

# A network of one channel with a block of each kind that learns for an epoch.
run="$corpus/run"
dbb="cargo run --release --bin dbb --"
rm -rf "$run"
$dbb train configs/quick/resnet20-base.toml --out "$run" \
    --set model.arch=resnet18-cifar --set model.width=0.015625 \
    --set model.blocks.stage1.0.conv1=dbb --set model.blocks.stage1.0.conv2=acb \
    --set data.size=4 --set data.limit_train=64 --set data.limit_val=10 \
    --set train.epochs=1 --set train.ema=0.9
cp "$run"/checkpoints/00001/*.* "$corpus/checkpoint"
mv "$corpus/checkpoint/manifest.json" "$corpus/manifest"
cp "$run/export/deploy.safetensors" "$run/checkpoints/00001/network.bpk" "$corpus/weights"
$dbb export "$run" --form train --format safetensors --keys official \
    --out "$corpus/weights/official.safetensors"

# Three images of 2x3, three labels; an image of CIFAR-10 and one of CIFAR-100, names of classes.
printf '\0\0\10\3\0\0\0\3\0\0\0\2\0\0\0\3abcdefghijklmnopqr' > "$corpus/idx/images"
printf '\0\0\10\1\0\0\0\3\0\1\2' > "$corpus/idx/labels"
gzip -kf "$corpus/idx/images" "$corpus/idx/labels"
head -c 3073 /dev/zero > "$corpus/cifar/cifar10"
head -c 3074 /dev/zero > "$corpus/cifar/cifar100"
printf '%s\n' 0 1 2 3 4 5 6 7 8 9 > "$corpus/cifar/names"

# Class folders, WebDataset shards, long names.
tree=$(mktemp -d)
long=$(printf '%0120d' 0)
for split in train val; do
    mkdir -p "$tree/$split/ant" "$tree/$split/bee"
    cp tests/fixtures/images/grey.png "$tree/$split/ant"
    cp tests/fixtures/images/grey.png "$tree/$split/bee/$long.png"
done
cp tests/fixtures/images/grey.png "$tree/0.png"
echo 7 > "$tree/0.cls"
for format in ustar gnu pax; do
    tar -C "$tree" --format=$format -cf "$corpus/tar/$format" train/ant val/ant
    tar -C "$tree" --format=$format -cf "$corpus/tar/$format-shard" 0.png 0.cls
done
tar -C "$tree" --format=gnu -cf "$corpus/tar/gnu-long" train val
tar -C "$tree" --format=pax -cf "$corpus/tar/pax-long" train val
rm -r "$tree"
