#!/bin/sh
# The papers' claims as experiments that two CPU cores can carry out (examples/papers/twins/).
#
#   twins.sh          most of it, in the home .twins/all; stopped, it goes on where it was
#   twins.sh grow     networks that grow, in the home .twins/grow, likewise
#   twins.sh joint    borrowed images, in the home .twins/joint, likewise
#   twins.sh smoke    the same designs with few levels and steps, on images that packages bring along
set -eu
cd "$(dirname "$0")/../.."
mode="${1:-all}"
FTD_HOME="${FTD_TWINS_HOME:-$PWD/.twins/$mode}"
export FTD_HOME
specs=examples/papers/twins
fashion=.twins/data/FashionMNIST/raw
debian=/usr/share/datasets/fashion-mnist
mkdir -p "$FTD_HOME"

enqueue() {
  spec="$1"
  shift
  ftd enqueue "$specs/$spec.yaml" "$@"
}

if [ "$mode" = smoke ]; then
  digits='dataset: digits, decode_size: 28, val_per_class: 5, test_per_class: 20'
  low="{$digits, classes: {only: ['0', '1', '2', '3', '4']}}"
  high="{$digits, classes: {only: ['5', '6', '7', '8', '9']}"
  enqueue source --set "target=$low" --set train.steps=30 --set train.warmup_steps=3 --set replicates=2
  enqueue 1-learning-rate --set "target=$high}" --set train.steps=6 --set replicates=2 \
    --set 'factors.target.num_images=[20, 100]' --set 'factors.train.lr=[0.003, 0.03]'
  enqueue 3-imbalance --set "target=$high, num_images: 100, imbalance: {ratio: 1, hold: total}}" \
    --set train.steps=6 --set replicates=2 --set 'factors.target.imbalance.ratio=[1, 10]' \
    --set 'tune={over: {train.lr: [0.003, 0.03]}, select: val/balanced_accuracy, per: cell}'
  enqueue 5-freeze-or-tune --set train.steps=6 --set replicates=1 \
    --set 'factors.distance=[{name: middle, set: {target.dataset: digits}}, {name: far, set: {target.dataset: elpv}}]' \
    --set 'factors.layers=[F(1-5)R(6-8), FT(1-5)R(6-8)]' --set 'factors.target.per_class=[2, 20]' \
    --set 'tune={over: {train.lr: [0.004, 0.016]}, select: val/balanced_accuracy, per: cell}'
  enqueue 6-real-images --set train.steps=3 --set replicates=1 --set target.decode_size=64 \
    --set 'factors.target.per_class=[10]' --set target.val_per_class=10 \
    --set 'tune={over: {train.lr: [0.01, 0.03]}, select: val/auroc, per: cell}'
  sets="[{name: 5 of 60, set: {source.classes.num_classes: 5}}, {name: 10 of 60, set: {source.classes.num_classes: 10}}]"
  one='[{name: digits, set: {target.dataset: digits}}]'
  enqueue 2-classes-sources --set "factors.source=$sets" --set source.per_class=60 \
    --set source.glyphs.variants=6 --set train.steps=30 --set train.warmup_steps=3 --set replicates=2
  enqueue 2-classes --set 'factors.model.weights.cell.source=[5 of 60, 10 of 60]' \
    --set "factors.target=$one" --set replicates=2
  enqueue 4-top-layers --set train.steps=3 --set 'factors.train.lr=[0.003, 0.03]' --set replicates=1 \
    --set target.decode_size=32 --set target.per_class=20
  enqueue 4-changes --set 'factors.after.cell.train.lr=[0.003, 0.03]' --set replicates=1 \
    --set target.decode_size=32 --set target.per_class=20 --set pictures.map_images=100
  enqueue 7-distances --set 'factors.source=[{name: digits, set: {source.dataset: digits}}]' \
    --set 'factors.target=[{name: digits, set: {target.dataset: digits}}, {name: solar cells, set: {target.dataset: elpv}}]' \
    --set source.decode_size=32 --set target.decode_size=32 --set num_images=100 --set replicates=1 \
    --set cnn.steps=5
  enqueue 8-layers --set "factors.target=$one" --set target.decode_size=32 --set replicates=1 \
    --set 'factors.features.layer=[4, 18]' --set target.per_class=10 --set target.test_per_class=10
  enqueue 9-sources --set source.glyphs.variants=2 --set source.per_class=20 --set source.val_per_class=3 \
    --set source.test_per_class=3 --set train.steps=20 --set train.warmup_steps=3 --set replicates=1 \
    --set 'factors.source=[{name: half as wide, set: {model.name: mini8-w0.5}}, {name: long, set: {train.steps: 30, train.schedule: constant, keep_at: [10]}}]'
  shapes='factors.source=[
    {name: half as wide, set: {model.name: mini8-w0.5, model.weights.cell.source: half as wide}},
    {name: 10 steps, set: {model.weights.cell.source: long, model.weights.checkpoint: 10}},
    {name: 30 steps, set: {model.weights.cell.source: long}}]'
  enqueue 9-early-wide-deep --set "$shapes" --set "factors.target=$one" --set replicates=1
  enqueue 9-retrieval --set "$shapes" --set replicates=1 --set target.num_images=100
  one_lr='tune={over: {train.lr: [0.004]}, select: val/top1, per: cell}'
  arms='[{name: wa, set: {growth: {type: wa, units: 8}}}, {name: da, set: {growth: {type: da, units: 8}}}]'
  enqueue 10-grow --set "target=$high}" --set train.steps=6 --set replicates=1 --set "$one_lr" \
    --set "factors.growth=$arms"
  enqueue 11-grow-real-images --set train.steps=3 --set replicates=1 --set target.decode_size=64 \
    --set 'factors.target.per_class=[10]' --set target.val_per_class=10 \
    --set 'tune={over: {train.lr: [0.01]}, select: val/auroc, per: cell}'
else
  if [ ! -d "$fashion" ]; then
    if [ ! -d "$debian" ]; then
      echo "Fashion-MNIST is not here. Debian and Ubuntu: apt-get install dataset-fashion-mnist." >&2
      echo "Or put its four files, unpacked, into $PWD/$fashion" >&2
      exit 1
    fi
    mkdir -p "$fashion.part"
    for file in "$debian"/*-ubyte.gz; do
      gunzip -c "$file" >"$fashion.part/$(basename "$file" .gz)"
    done
    mv "$fashion.part" "$fashion"
  fi
  all='source 1-learning-rate 2-classes-sources 2-classes 3-imbalance 4-top-layers 4-changes
    5-freeze-or-tune 6-real-images 7-distances 8-distances 8-layers 8-retrieval
    9-sources 9-early-wide-deep 9-retrieval'
  grow='source 12-wide-source 12-grow-or-wide 11-grow-real-images 10-grow 10-gamma
    10-large-source 10-grow-large'
  joint='source 13-borrow 13-borrow-pretrained 14-hard-images'
  case "$mode" in
    grow) wanted=$grow ;;
    joint) wanted=$joint ;;
    *) wanted=$all ;;
  esac
  for spec in $wanted; do
    enqueue "$spec"
  done
fi

printf '\nA daemon works on them (log: %s/daemon.out). Ctrl-C is safe: a later call goes on.\n' \
  "$FTD_HOME"
ftd daemon --until-idle 2>>"$FTD_HOME/daemon.out" &
daemon=$!
trap 'kill "$daemon" 2>/dev/null || true' INT TERM
names='twin-1-learning-rate twin-2-classes twin-3-imbalance twin-5-freeze-or-tune twin-6-real-images
  twin-8-layers twin-9-early-wide-deep twin-9-retrieval'
others='twin-source twin-2-sources twin-9-sources twin-4-top-layers twin-4-changes twin-7-distances'
growing='twin-11-grow-real-images twin-10-grow'
case "$mode" in
  smoke) names="$names $growing" ;;
  grow) names="$growing twin-12-grow-or-wide twin-10-gamma twin-10-grow-large" others='' ;;
  joint) names='twin-13-borrow twin-13-borrow-pretrained twin-14-hard-images' others='' ;;
  *) others="$others twin-8-distances twin-8-retrieval" ;;
esac
# shellcheck disable=SC2086
ftd wait $names $others
wait "$daemon"
for name in $names; do
  ftd summary "$name"  # with --metric test/balanced_accuracy and others: what else was measured
done
if [ "$mode" = all ] || [ "$mode" = smoke ]; then
  ftd changes twin-4-changes
  ftd distances twin-7-distances
fi
