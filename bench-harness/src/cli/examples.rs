// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What `--help` of the commands ends with, where no other module has it.

pub(super) const RUN: &str = "\
Examples:
  tce-bench run --groups 4 --window 2G --levels 2
  tce-bench run --phase ring --phase single --duration 500ms
  tce-bench run --page-size 2M --platform phb4 --backend mock --json out.json
  tce-bench run --backend vfio --groups 4 --dry-run    what it would take, and nothing else";

pub(super) const REPLAY: &str = "\
Examples:
  tce-bench replay workloads/traces/*.zst
  tce-bench replay --pass checked --compat kvm workloads/traces/boot-ddw.tce.zst
  tce-bench replay --policy deferred=256 --json out.json workloads/traces/net-rx.tce.zst";

pub(super) const DMA: &str = "\
Needs a machine whose groups have edu devices, as scripts/power8-vm makes one.

Examples:
  tce-bench dma
  tce-bench dma --vfio-groups 0,1 --json dma.json";

pub(super) const COST: &str = "\
Examples:
  tce-bench cost                            on vfio if there is any, else on a mock
  tce-bench cost --backend mock-kernel --pages 1,512
  tce-bench cost --backend vfio --groups 4 --json cost.json";

pub(super) const SHARING: &str = "\
Examples:
  tce-bench sharing
  tce-bench sharing --groups 1,16,256 --json sharing.json";

pub(super) const TEARDOWN: &str = "\
Examples:
  tce-bench teardown
  tce-bench teardown --windows 1T --levels 3 --groups 8 --rounds 5
  tce-bench teardown --quiet --json teardown.json";

pub(super) const DOCTOR: &str = "\
Looks at the machine, its files in /dev, /proc, /sys and /lib/modules and the nodes of VFIO, and changes
nothing. For what is wrong there is one command, where one can put it right. Give the window that is
wanted, as for run: what has to be locked and which huge pages are needed depends on it.

Examples:
  tce-bench doctor
  tce-bench doctor --groups 4 --window 64G --page-size 64K
  tce-bench doctor --vfio-groups 3,5 --json doctor.json

Exit codes: 0 the real back end is usable, 4 it is not (schema tce-bench.doctor/1).";

pub(super) const INFO: &str = "\
Examples:
  tce-bench info
  tce-bench info --quiet --json machine.json    for programs (schema tce-bench.info/1)";

pub(super) const PLAN: &str = "\
Takes the options of run, touches no group and no memory, and ends as run would before it begins. What a
group of a real machine offers is only known when it is asked, which would take it from the host: a plan
for vfio goes by what the processor's host bridges offer.

Examples:
  tce-bench plan --groups 4 --window 2G --levels 2
  tce-bench plan --backend vfio --groups 2 --page-size 16M --buffer 1G
  tce-bench plan --backend mock-kernel --platform phb4 --page-size 2M --dma-mask 32,64
  tce-bench plan --window 1T --page-size 64K --buffer 1G --json plan.json

Exit codes: 0 it can be, 1 or 4 it cannot, 2 wrong command line (schema tce-bench.plan/1).";

pub(super) const COMPLETIONS: &str = "\
Examples:
  tce-bench completions bash > ~/.local/share/bash-completion/completions/tce-bench
  tce-bench completions zsh > _tce-bench
  tce-bench completions fish > ~/.config/fish/completions/tce-bench.fish";

pub(super) const MAN: &str = "\
Examples:
  tce-bench man | man -l -
  tce-bench man --dir /usr/local/share/man/man1";
