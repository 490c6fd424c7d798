#!/usr/bin/env bash
# Usage: tools/misc/install_mmcv.sh PYTHON VERSION BUILD_FOLDER
# Sees to mmcv with operators that work with PYTHON's torch: the one that is
# installed, where it is of this version; a wheel from PIP_FIND_LINKS, where
# one fits; else one that is built from the source, and a build that was
# stopped goes on with the files it still lacks.
# Leaves BUILD_FOLDER/cpu-only where the operators do not know CUDA.
set -euo pipefail
python=$1
version=$2
build=$3
here="$(cd "$(dirname "$0")" && pwd)"
pip() { "$python" -I -m pip "$@"; }
check() {
    "$python" "$here/check_mmcv_operators.py" "$version" "$build/cpu-only"
}

mkdir -p "$build"
if check 2>/dev/null; then
    echo "== mmcv $version: is installed"
    exit
fi
if pip install --quiet --no-deps --no-index --force-reinstall \
        --only-binary mmcv "mmcv==$version" 2>/dev/null && check; then
    echo "== mmcv $version: took a wheel that is there"
    exit
fi

source="$build/mmcv-$version"
if [ ! -d "$source" ]; then
    pip download --no-deps --no-build-isolation --no-binary mmcv \
        --dest "$build" "mmcv==$version"
    rm -rf "$build/unpacked"
    mkdir "$build/unpacked"
    tar -xzf "$build/mmcv-$version.tar.gz" -C "$build/unpacked"
    mv "$build/unpacked/mmcv-$version" "$source"
fi

echo "== mmcv $version: compiling its operators, 5 to 12 minutes on 2 cores"
gpu=(env)
if ! command -v nvcc >/dev/null; then
    echo "== mmcv $version: no nvcc, so the operators are for the CPU only"
    gpu=(env CUDA_VISIBLE_DEVICES=)
fi
# Fewer optimisations and no debug symbols halve the time of the build.
cd "$source"
"${gpu[@]}" MMCV_WITH_OPS=1 CFLAGS="${MMCV_CFLAGS--g0 -O1}" \
    LDFLAGS=-Wl,--strip-all PYTHONPATH= \
    "$python" setup.py build bdist_wheel --dist-dir "$build/wheel"
pip install --no-deps --force-reinstall "$build/wheel/mmcv-$version"-*.whl
check
