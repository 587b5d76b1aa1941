# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#
# Kernel source, and the series on it, in git repositories in the cache. Sourced, never run.
#
# The caller's options: base, the folder of kernel-patches whose series is meant, and tree, the user's
# checkout to use, or empty; and instead, what more to say if there is no such series. find_source sets src,
# the folder of a source in the cache, and id, which names its content; the repository is $src/linux, with
# refs/base. The source for v7.3-NAME is that of v7.3.

# shellcheck disable=SC2034,SC2154 # from lib.sh, and for those who source this
base=v7.3
tree=
instead=

# Where Debian has linux-source, or had it; of a version that is still maintained the newest is in -security.
suites=(bookworm-security trixie-security trixie-backports trixie forky sid bookworm-backports)
declare -A tarballs=(
    [v7.3]=https://cdn.kernel.org/pub/linux/kernel/v7.x/linux-7.3.4.tar.xz
    [v6.12]=https://cdn.kernel.org/pub/linux/kernel/v6.x/linux-6.12.117.tar.xz
)

# Where a patch does not apply nobody can go on by hand, as git hints: that work tree is not the user's. An older
# git (2.39) obeys only git am --resolvemsg=
no_hints=(-c advice.mergeConflict=false -c advice.amWorkDir=false)

# Git for the cache, which must not depend on the user's settings, hooks and name.
kgit() {
    GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null \
        GIT_AUTHOR_NAME=bpf-sctp GIT_AUTHOR_EMAIL=none GIT_COMMITTER_NAME=bpf-sctp GIT_COMMITTER_EMAIL=none \
        git -C "$src/linux" -c core.hooksPath=/dev/null -c core.fsync=none -c gc.auto=0 \
        "${no_hints[@]}" "$@"
}

# ---- Where the source comes from. Each way gives $src/linux, a git repository, and $src/id, its identity.

# Debian's mirrors, as this machine's apt knows them; -security has its own.
debian_mirrors() { # SUITE
    # shellcheck disable=SC2016 # apt expands these
    apt-get indextargets --format '$(SITE) $(RELEASE)' 'Created-By: Packages' 'Component: main' |
        awk -v suite="$1" '($2 ~ /-security/) == (suite ~ /-security/) { print $1 }' | sort -u
}

# apt with a state of its own below DIR: this machine's stays as it is, and root is not needed.
private_apt() { # DIR MIRROR SUITE
    mkdir -p "$1/lists/partial" "$1/archives/partial"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $2 $3 main" >"$1/sources.list"
    cat >"$1/apt.conf" <<-END
		Dir::Etc::SourceList "$1/sources.list";
		Dir::Etc::SourceParts "/dev/null";
		Dir::State::Lists "$1/lists";
		Dir::Cache::Archives "$1/archives";
		Dir::Cache::pkgcache "";
		Dir::Cache::srcpkgcache "";
		APT::Sandbox::User "$(id -un)";
		Acquire::Languages "none";
		#clear APT::Update::Post-Invoke;
	END
}

# A version in an index may be gone from the mirror, so each one is tried.
download_debian() { # DIR PACKAGE
    local mirror suite version
    cd "$1" || return
    for suite in "${suites[@]}"; do
        for mirror in $(debian_mirrors "$suite"); do
            private_apt "$1" "$mirror" "$suite"
            apt-get -c apt.conf -q update || continue
            for version in $(apt-cache -c apt.conf madison "$2" | awk '{ print $3 }'); do
                apt-get -c apt.conf -q download "$2=$version" && echo "$2 $version" >id && return
            done
        done
    done
    echo "No version of $2 in ${suites[*]} could be had. Give a kernel checkout with --tree DIR."
    return 1
}

download_tarball() { # DIR URL
    cd "$1" || return
    curl -fsSLO "${2%/*}/sha256sums.asc" && curl -fLO "$2" && grep " ${2##*/}\$" sha256sums.asc | sha256sum -c &&
        echo "${2##*/}" >id
}

unpack() { # DIR: what was downloaded there, into $src/linux
    mkdir -p "$src/linux"
    if [[ -n $(compgen -G "$1/*.deb") ]]; then
        dpkg-deb --fsys-tarfile "$1"/*.deb | tar -xO --wildcards './usr/src/*.tar.xz'
    else
        cat "$1"/*.tar.xz
    fi | tar -xJ -C "$src/linux" --strip-components=1
}

# All files go straight into one pack: as loose objects they would take five times the space.
import_source() {
    kgit init -q -b import && kgit -c core.bigFileThreshold=1 -c core.compression=1 add -A -f &&
        kgit commit -q -m "$(<"$src/download/id")" && kgit update-ref refs/base HEAD
}

fetch_source() {
    local download=$src/download base=${base%%-*}
    need_space "$cache" 6 "the kernel's source and build"
    rm -rf "$src/linux" "$download"
    mkdir -p "$download"
    if [[ $(. /etc/os-release && echo "$ID") == debian ]]; then
        run_step "downloading linux-source-${base#v} from Debian" kernel-download download_debian "$download" "linux-source-${base#v}"
    else
        [[ -n ${tarballs[$base]:-} ]] || die "no source is known for $base: give a kernel checkout with --tree DIR"
        run_step "downloading ${tarballs[$base]}" kernel-download download_tarball "$download" "${tarballs[$base]}"
    fi
    run_step "unpacking it" kernel-unpack unpack "$download"
    run_step "making it a git repository" kernel-import import_source
    mv "$download/id" "$src/id"
    rm -rf "$download"
}

# A repository that borrows the objects of the user's, which needs no change for that.
borrow_tree() { # TREE COMMIT
    local common
    common=$(cd -- "$1" && realpath -- "$(git rev-parse --git-common-dir)")
    if [[ ! -d $src/linux/.git ]]; then
        need_space "$cache" 6 "the kernel's source and build"
        mkdir -p "$src/linux"
        kgit init -q -b import --object-format="$(git -C "$1" rev-parse --show-object-format)"
    fi
    echo "$common/objects" >"$src/linux/.git/objects/info/alternates"
    rm -f "$src/linux/.git/shallow"
    [[ ! -f $common/shallow ]] || cp "$common/shallow" "$src/linux/.git/shallow"
    kgit update-ref refs/base "$2"
    echo "$1 $2" >"$src/id"
}

# Sets tree to the top of the repository, and commit; dies if it is not what it says it is.
check_tree() {
    local top
    top=$(git -C "$tree" rev-parse --show-toplevel 2>/dev/null) ||
        die "$tree is not a git repository: clone one, or run git init, add and commit there"
    top=$(realpath -- "$top")
    [[ $(realpath -- "$tree") == "$top" ]] || die "$tree is a folder of the repository $top, and not its top"
    tree=$top
    [[ -f $tree/Kconfig && -f $tree/MAINTAINERS ]] || die "$tree is not a kernel tree"
    commit=$(git -C "$tree" rev-parse --verify -q HEAD) || die "$tree has no commit yet"
    [[ -z $(git -C "$tree" --no-optional-locks status --porcelain --untracked-files=no) ]] ||
        die "$tree has changes that are not committed, and only a commit is used: commit or stash them"
}

# ---- The series

known_bases() { basename -a "$repo"/kernel-patches/v* | paste -sd " "; }

# Sets patches; and below, the patches of the series that its file "after" names, on which it stands.
find_patches() {
    local series others=() file=$repo/kernel-patches/$base/after
    [[ ! -f $file ]] || read -ra others <"$file"
    shopt -s nullglob
    patches=("$repo/kernel-patches/$base"/[0-9]*.patch)
    below=()
    for series in "${others[@]}"; do
        below+=("$repo/kernel-patches/$series"/[0-9]*.patch)
    done
    shopt -u nullglob
    ((${#patches[@]})) || die "there is no series for $base, only for: $(known_bases)$instead"
}

# Dies if the user's tree has the series already, by its subjects. A tree where it was reverted has these too, so
# this is for when something else failed.
refuse_again() {
    local patch subjects branch
    subjects=$(for patch in "${patches[@]}"; do git mailinfo /dev/null /dev/null <"$patch" || true; done | sed -n 's/^Subject: //p')
    ! grep -qvxFf <(git -C "$tree" log -n 1000 --format=%s "$commit") <<<"$subjects" || return 0
    branch=$(git -C "$tree" symbolic-ref -q --short HEAD) || branch=HEAD
    die "the series in kernel-patches/$base is already on $branch, which is checked out in $tree: check out what it is for, with git -C $tree switch --detach -"
}

# Only the files that patches are about, because a whole kernel takes long; git am -3 has to find them there.
check_out_patched() { # WORK-TREE PATCH…
    (cd "$1" && git apply --numstat "${@:2}" | cut -f3 | sort -u | xargs git ls-files -z -- |
        git checkout-index -q -u -z --stdin)
}

# In a work tree of its own, so that no file of the build's is written twice. With -3, because series that
# were made side by side may touch neighbouring lines.
apply_series() { # REF ON PATCH…
    local work=$src/apply
    rm -rf "$work"
    kgit worktree prune && kgit worktree add -q --no-checkout --detach "$work" "$2" &&
        kgit -C "$work" read-tree HEAD && check_out_patched "$work" "${@:3}" && kgit -C "$work" am -3 --resolvemsg= "${@:3}" &&
        kgit update-ref "$1" "$(kgit -C "$work" rev-parse HEAD)" && kgit worktree remove -f "$work"
}

# Sets ref to these patches on a commit.
find_applied() { # ON PATCH…
    ref=refs/series/$(cat <(kgit rev-parse "$1") "${@:2}" | hash_of)
    kgit rev-parse -q --verify "$ref" >/dev/null ||
        (run_step "applying $(($# - 1)) patches" kernel-series apply_series "$ref" "$@") || {
            [[ -z $tree ]] || refuse_again
            exit 1
        }
}

# Sets ref to the series on the source, and onto to what it stands on.
find_series() {
    onto=refs/base
    if ((${#below[@]})); then
        find_applied "$onto" "${below[@]}"
        onto=$ref
    fi
    find_applied "$onto" "${patches[@]}"
}

# ---- All together

# One call at a time works on a source; the others wait here.
lock_source() {
    [[ -z ${lock:-} ]] || return 0
    mkdir -p "$src"
    exec {lock}>"$src/lock"
    flock -n "$lock" || { say "waiting for another build of this source" && flock "$lock"; }
}

find_source() {
    if [[ -n $tree ]]; then
        check_tree
        src=$cache/source/tree-$(hash_of <<<"$tree")
        id=$commit
    else
        src=$cache/source/${base%%-*}
        [[ -f $src/id ]] || lock_source
        [[ -f $src/id ]] || fetch_source
        id=$(<"$src/id")
    fi
}

# What must be done before the repository is used; the lock is the caller's.
open_source() {
    [[ -z $tree ]] || borrow_tree "$tree" "$commit"
}

# A work tree of the series that scripts/kernel leaves alone, so that builds in it stay as they are.
check_out_series() { # sets work, and ref
    work=$src/series
    find_series
    if [[ ! -f $work/Kconfig ]]; then
        need_space "$cache" 4 "a work tree for the series, and what is built of it"
        rm -rf "$work"
        kgit worktree prune
        run_step "making a work tree for the series" series-worktree kgit worktree add -q --detach "$work" "$ref"
    fi
    rm -f "$(kgit -C "$work" rev-parse --git-dir)/index.lock"
    kgit -C "$work" checkout -q -f --detach "$ref"
}

# Applies the series on top of the user's tree, in a work tree that is there only meanwhile, so that
# nothing is half done. Sets applied, a commit that no branch names yet.
apply_to_tree() { # GIT-AM-OPTION…
    local work log=$cache/log/series-apply.log
    mkdir -p "${log%/*}"
    git -C "$tree" var GIT_COMMITTER_IDENT >/dev/null 2>&1 ||
        die "git does not know who you are: git config --global user.name and user.email"
    work=$(mktemp -d)
    # shellcheck disable=SC2064 # this value
    trap "git -C '$tree' worktree remove -f '$work' 2>/dev/null || true; rm -rf '$work'" EXIT
    git -C "$tree" worktree add -q --no-checkout --detach "$work" HEAD
    git -C "$work" read-tree HEAD
    check_out_patched "$work" "${patches[@]}"
    if ! git -C "$work" "${no_hints[@]}" am -3 --resolvemsg= "$@" "${patches[@]}" >"$log" 2>&1; then
        refuse_again
        tail -n 20 "$log" | sed 's/^/    /' >&2
        ((${#below[@]} == 0)) || say "this series stands on others, which must be in the tree before: $(<"$repo/kernel-patches/$base/after")"
        die "the series in kernel-patches/$base does not apply to $tree, which is as it was; the whole log is $log"
    fi
    applied=$(git -C "$work" rev-parse HEAD)
    if [[ $applied == "$commit" ]]; then
        refuse_again
        die "all that the series in kernel-patches/$base changes is in $tree already"
    fi
    git -C "$tree" worktree remove -f "$work"
    trap - EXIT
}
