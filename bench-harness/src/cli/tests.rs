// SPDX-License-Identifier: Apache-2.0 OR MIT
use super::*;
use crate::cmd::compare::Metric;
use crate::outfile::OutFile;
use crate::profile;
use clap::CommandFactory;
use tce_engine::simd::Tier;

fn words(line: &str) -> Vec<&str> {
    std::iter::once("tce-bench").chain(line.split_whitespace()).collect()
}

fn run(line: &str) -> RunConfig {
    match parse(words(line)) {
        Ok(Invocation::Run(config)) => config,
        other => panic!("{line}: {other:?}"),
    }
}

fn replay(line: &str) -> ReplayConfig {
    match parse(words(line)) {
        Ok(Invocation::Replay(config)) => config,
        other => panic!("{line}: {other:?}"),
    }
}

/// The error line without "error: ", checked to be one line and a usage error.
fn refused(line: &str) -> String {
    let exit = parse(words(line)).expect_err(line);
    assert_eq!(exit.code, EXIT_USAGE, "{line}: {exit:?}");
    let text = exit.text.strip_suffix('\n').expect("a final newline");
    assert!(!text.contains('\n'), "{line}: more than one line: {text}");
    text.strip_prefix("error: ").unwrap_or_else(|| panic!("{line}: {text}")).to_string()
}

#[test]
fn clap_finds_no_fault_with_the_definitions() {
    Cli::command().debug_assert();
}

#[test]
fn no_command_is_run_with_the_documented_defaults() {
    let config = run("");
    assert_eq!(config, run("run"));
    assert_eq!((config.groups, config.containers, config.threads), (1, 1, 1));
    assert_eq!((config.window_bytes, config.levels), (2 << 30, Levels::Auto));
    assert_eq!((config.page_shift, config.host_page_shift), (12, None));
    assert_eq!((config.backing_bytes, config.contiguous), (2 << 20, false));
    assert_eq!((config.seed, config.memlock_bytes, config.buffer_bytes), (1, None, None));
    assert_eq!((config.simd, config.backend), (Simd(Tier::best()), BackendChoice::Auto));
    assert_eq!((config.repetitions, config.duration, config.warmup), (None, None, None));
    assert_eq!(config.phases, Phase::ALL);
    assert_eq!(config.output, Output::default());
}

#[test]
fn every_option_of_run_arrives() {
    let config = run("run --groups 4 --containers 2 --window 0x40000000 --levels 2 --page-size \
        64KiB --host-page 4K --backing 16M --contiguous --buffer 256M --threads 2 --cpus 1,0 \
        --repetitions 3 --duration 500ms --warmup 0s --simd portable --seed 0xff --memlock 8G \
        --phase clear --phase bulk --backend mock --json - --hlog h.hlog --label x --quiet");
    assert_eq!((config.groups, config.containers, config.threads), (4, 2, 2));
    assert_eq!((config.window_bytes, config.levels), (1 << 30, Levels::Count(2)));
    assert_eq!((config.page_shift, config.host_page_shift), (16, Some(12)));
    assert_eq!((config.backing_bytes, config.contiguous), (16 << 20, true));
    assert_eq!((config.buffer_bytes, config.memlock_bytes), (Some(256 << 20), Some(8 << 30)));
    assert_eq!(config.cpus, Some(vec![1, 0]));
    assert_eq!(config.repetitions, Some(3));
    assert_eq!(config.duration, Some(Duration::from_millis(500)));
    assert_eq!(config.warmup, Some(Duration::ZERO));
    assert_eq!((config.simd.0.name(), config.backend), ("portable", BackendChoice::Mock));
    assert_eq!(config.seed, 255);
    assert_eq!(config.phases, [Phase::Bulk, Phase::Clear]);
    let output = config.output;
    assert_eq!(output.json, Some(OutFile::Stdout));
    assert_eq!(output.hlog, Some(OutFile::File("h.hlog".into())));
    assert_eq!((output.label.as_deref(), output.quiet), (Some("x"), true));
}

#[test]
fn replay_takes_traces_and_passes() {
    let config = replay("replay a.zst b --ram 2G --pass latency --pass checked --pass latency");
    assert_eq!(config.traces, [PathBuf::from("a.zst"), PathBuf::from("b")]);
    assert_eq!(config.ram_bytes, Some(2 << 30));
    assert_eq!(config.passes, [Pass::Checked, Pass::Latency]);
    let all = [Pass::Checked, Pass::Throughput, Pass::Latency];
    assert_eq!(replay("replay a --seed 2").passes, all);
    assert_eq!(all.map(Pass::name), ["checked", "throughput", "latency"]);
    assert!(refused("replay").contains("<TRACE>"));
    assert!(refused("replay a --ram 5000").contains("--ram 5000 is not a number of host pages"));
    assert!(refused("replay a --pass quick").contains("checked, throughput, latency"));
    assert!(refused("replay a --groups 2").contains("--groups"));
    assert_eq!(replay("replay a").compat, Rules::Arch);
    for rules in [Rules::Arch, Rules::Kvm, Rules::Qemu] {
        assert_eq!(replay(&format!("replay a --compat {}", rules.name())).compat, rules);
    }
    assert!(refused("replay a --compat papr").contains("arch, kvm, qemu"));
}

#[test]
fn limits_takes_sizes() {
    let limits = |line: &str| match parse(words(line)) {
        Ok(Invocation::Limits(config)) => config,
        other => panic!("{line}: {other:?}"),
    };
    let config = limits("limits");
    assert_eq!(config.sizes, [16, 20, 22, 24, 26, 28].map(|lg2| 1u64 << lg2));
    assert_eq!((config.repeat, config.json, config.quiet), (10, None, false));
    let config = limits("limits --sizes 4K,0x10000 --repeat 3 --json - -q");
    assert_eq!((config.sizes, config.repeat, config.quiet), (vec![4096, 65536], 3, true));
    assert_eq!(config.json, Some(OutFile::Stdout));
}

#[test]
fn windows_that_cannot_be_name_the_nearest() {
    assert_eq!(
        refused("--window 3G"),
        "--window 3G (3221225472) is not a power of two; the nearest are 2G and 4G"
    );
    assert!(refused("--window 4097").starts_with("--window 4097 is not a power of two; the near"));
    assert!(refused("--window 0").contains("smaller than one page of 4K"));
    assert!(refused("--window 4K --page-size 64K").contains("a power of two from 64K up"));
    assert!(refused("--window 0xffffffffffffffff").ends_with("the nearest is 8192P"));
    assert!(refused("--window 2.5G").starts_with("--window: '2.5G' is not a whole number"));
    assert!(refused("--window 20000P").contains("does not fit in 64 bits"));
    assert!(refused("--window").contains("--window <SIZE>"));
}

#[test]
fn counts_say_their_range() {
    for text in ["0", "257", "-1", "x", "1.5"] {
        let error = refused(&format!("--groups {text}"));
        assert_eq!(
            error,
            format!("--groups: '{text}' is out of range; accepted: a whole number from 1 to 256")
        );
    }
    assert!(refused("--threads 0").contains("from 1 to 1024"));
    assert!(refused("--repetitions 0").contains("from 1 to 1000000"));
    assert_eq!(
        refused("--groups 2 --containers 3"),
        "--containers 3 is more than --groups 2; accepted: 1 to 2"
    );
}

#[test]
fn levels_and_page_sizes_list_what_there_is() {
    for text in ["0", "6", "-1", "many"] {
        let error = refused(&format!("--levels {text}"));
        assert!(error.ends_with("accepted: 1 to 5, or auto"), "{error}");
    }
    assert_eq!(
        refused("--page-size 8K"),
        "--page-size: '8K' is no IOMMU page size; accepted: 4K, 64K, 2M, 16M, 256M, 1G"
    );
    assert!(refused("--host-page 16K").ends_with("accepted: 4K, 64K"));
    assert!(refused("--backing 1G").ends_with("accepted: 64K, 2M, 16M"));
}

#[test]
fn a_page_must_fit_in_contiguous_memory() {
    assert_eq!(run("--page-size 16M").backing_bytes, 16 << 20);
    assert_eq!(run("--page-size 1G --window 4G --contiguous").page_shift, 30);
    let error = refused("--page-size 16M --backing 2M");
    assert!(error.contains("accepted: --backing 16M, --contiguous"), "{error}");
    let error = refused("--page-size 256M");
    assert!(error.contains("--backing 16M; accepted: --contiguous"), "{error}");
}

#[test]
fn the_other_values_are_checked() {
    assert!(refused("--buffer 5000").contains("--buffer 5000 is not a number of IOMMU pages"));
    assert!(refused("--buffer 4G").contains("larger than the window; accepted: up to 2G"));
    assert!(refused("--buffer 0").contains("accepted: a multiple of 4K"));
    assert!(refused("--threads 3 --cpus 0-1").contains("names 2 for --threads 3"));
    assert!(refused("--cpus 3-1").contains("'3-1' is wrong"));
    assert!(refused("--duration 0s").contains("--duration is zero"));
    assert!(refused("--duration 10").contains("no time unit"));
    assert!(refused("--memlock lots").ends_with(", or none"));
    assert!(refused("--seed 0x").contains("no seed"));
    assert!(refused("--seed 0x+1").contains("no seed"));
    assert!(refused("--simd sse").contains("no tier of this machine; accepted: auto, portable"));
    for tier in Tier::all() {
        assert_eq!(run(&format!("--simd {}", tier.name())).simd, Simd(tier));
    }
    assert!(refused("--backend hw").contains("mock, mock-kernel, vfio, auto"));
    assert!(refused("--json - --hlog -").contains("--json and --hlog both name '-'"));
    if profile::AVAILABLE {
        let error = refused("--hlog x.gz --profile x.gz");
        assert_eq!(error, "--hlog and --profile both name 'x.gz'; accepted: two places");
        assert_eq!(run("--profile ./x").output.profile, Some(OutFile::File("./x".into())));
        assert_eq!(replay("replay a --profile -").output.profile, Some(OutFile::Stdout));
    } else {
        assert!(refused("--profile ./x").contains("use instead: perf record"));
        assert!(refused("replay a --profile ./x").contains("use instead: perf record"));
    }
}

#[test]
fn unknown_flags_are_one_line_with_a_tip() {
    let error = refused("--windw 2G");
    assert!(error.contains("'--windw'") && error.contains("'--window'"), "{error}");
    assert!(refused("--groups 2 replay a").contains("replay"));
    assert!(refused("rnu").contains("rnu"));
}

#[test]
fn comparisons_take_results_or_programs() {
    let compare = |line: &str| match parse(words(line)) {
        Ok(Invocation::Compare(config)) => config,
        other => panic!("{line}: {other:?}"),
    };
    let config = compare("compare old.json new");
    assert_eq!(config.what, Compared::Results("old.json".into(), "new".into()));
    assert_eq!((config.gate, config.threshold, config.seed), (false, 0.025, 1));
    assert_eq!(config.metrics, [Metric::Min, Metric::P50]);
    assert_eq!((config.force, config.format, config.json), (false, Format::Table, None));
    let config = compare("gate --baseline main new.json --threshold 5% --metric p99,min,p99");
    assert_eq!(config.what, Compared::Results("main".into(), "new.json".into()));
    assert_eq!((config.gate, config.threshold), (true, 0.05));
    assert_eq!(config.metrics, [Metric::Min, Metric::P99]);
    let config = compare(
        "gate --run A B --confirm --best-of 3 --keep k --format iommu -- --phase ring --quiet",
    );
    let Compared::Run(run) = config.what else { panic!("{config:?}") };
    assert_eq!((run.a, run.b, run.pairs), ("A".into(), "B".into(), 20));
    assert_eq!((run.best_of, run.confirm, run.keep), (3, true, Some("k".into())));
    assert_eq!(run.args, ["--phase", "ring", "--quiet"]);
    assert_eq!(config.format, Format::Iommu);
}

#[test]
fn help_and_version_succeed_and_teach() {
    let help = |line: &str| {
        let exit = parse(words(line)).unwrap_err();
        assert_eq!(exit.code, 0, "{exit:?}");
        exit.text
    };
    let text = help("--help");
    for part in ["--window <SIZE>", "default: 2G", "replay", "2 GiB", "Examples:", "Exit codes"] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    assert!(help("replay --help").contains("tce-trace 1"));
    assert!(help("limits --help").contains("tce-bench limits --sizes 64K,4M"));
    assert!(help("gate --help").contains("tce-bench gate --baseline results/main results/new"));
    assert!(help("policies --help").contains("tce-bench policies net-rx --svg net-rx.svg"));
    assert!(help("compare --help").contains("3 regression, 5 inconclusive"));
    assert!(help("--version").starts_with("tce-bench 0."));
}

#[test]
fn a_kernels_groups_and_containers() {
    let config = run("--vfio-groups 5,0 --containers 2");
    assert_eq!((config.groups, config.vfio_groups), (2, Some(vec![5, 0])));
    assert_eq!((config.backend, config.vfio_v1), (BackendChoice::Vfio, false), "it was meant");
    assert_eq!(run("--backend mock-kernel --vfio-groups 1 --groups 1").groups, 1);
    let config = run("--vfio-v1");
    assert_eq!((config.backend, config.vfio_v1), (BackendChoice::Vfio, true));
    // Huge pages need not fit in the mock's runs of memory.
    assert_eq!(run("--backend vfio --page-size 256M").page_shift, 28);
}

#[test]
fn what_a_kernels_containers_cannot_be() {
    for (line, error) in [
        ("--vfio-groups 1,x", "'x' is no group number; accepted: numbers with commas"),
        ("--vfio-groups 1,+2", "'+2' is no group number"),
        ("--vfio-groups 1,2,1", "group 1 is named twice"),
        ("--vfio-groups 1,2 --groups 3", "--groups 3, but --vfio-groups names 2; accepted: --gr"),
        ("--vfio-groups 1 --backend mock", "--vfio-groups with --backend mock; accepted: vfio"),
        ("--vfio-v1 --backend mock", "--vfio-v1 with --backend mock"),
        ("--vfio-v1 --groups 2", "--vfio-v1 with 2 groups; accepted: 1"),
        ("--vfio-v1 --window 1G", "--vfio-v1 with a window of 1G (1073741824) in pages of 4K"),
        ("--vfio-v1 --page-size 64K", "in pages of 64K; accepted: 2G, 4K and 1 level"),
        ("--vfio-v1 --levels 2", "1 level, the only window"),
        ("--detach isolate --backend mock", "--detach with --backend mock; accepted: vfio"),
        ("--detach never", "--detach"),
        ("--backend vfio --contiguous", "--contiguous is for the mock"),
        ("--backend mock-kernel --backing 2M", "--backing is for the mock"),
    ] {
        let refused = refused(line);
        assert!(refused.contains(error), "{line}: {refused}");
    }
}

#[test]
fn kills_cost_nothing_unless_asked() {
    use tce_engine::backend::mock::KillCost;
    let cost = |store_ns, fence_ns, refill_ns| Some(KillCost { store_ns, fence_ns, refill_ns });
    assert_eq!(run("").kill_cost, None);
    assert_eq!(run("--backend mock --kill-cost default").kill_cost, cost(100, 1000, 200));
    assert_eq!(run("--backend mock --kill-cost 1,0,1000000").kill_cost, cost(1, 0, 1_000_000));
    let no_cost = "is no cost of kills; accepted: default, or ns for a store, a fence and a level";
    for (line, error) in [
        ("--backend mock --kill-cost fast", no_cost),
        ("--backend mock --kill-cost 1,2", no_cost),
        ("--backend mock --kill-cost 1,2,3,4", no_cost),
        ("--backend mock --kill-cost 1,+2,3", no_cost),
        ("--backend mock --kill-cost 1,,3", no_cost),
        ("--backend mock --kill-cost 1,2,1000001", "each up to 1000000, as 100,1000,200"),
        ("--kill-cost default", "--kill-cost is of the mock's kills; accepted: --backend mock"),
        ("--backend vfio --kill-cost default", "--kill-cost is of the mock's kills"),
        ("--backend mock-kernel --kill-cost 1,2,3", "--kill-cost is of the mock's kills"),
        ("--profile k6_11 --kill-cost 1,2,3", "--kill-cost is of the mock's kills"),
    ] {
        let refused = refused(line);
        assert!(refused.contains(error), "{line}: {refused}");
    }
}

#[test]
fn policies_take_a_workload_and_say_what_is_measured() {
    use crate::policy::{Fill, Policy};
    use tce_engine::platform::Platform;
    let policies = |line: &str| match parse(words(line)) {
        Ok(Invocation::Policies(config)) => config,
        other => panic!("{line}: {other:?}"),
    };
    let config = policies("policies");
    let named: Vec<_> = config.policies.iter().map(Policy::to_string).collect();
    assert_eq!(named, ["strict", "batched", "deferred=256", "deferred=256,10ms"]);
    assert_eq!((config.workload.as_str(), config.groups, config.one_handle), ("ring", 1, false));
    assert_eq!(config.fills, [Fill::Always, Fill::BesideLive(16)]);
    assert_eq!(config.platforms, [Platform::Phb3, Platform::Phb4]);
    assert_eq!((config.repeat, config.calls, config.seed), (3, 200_000, 1));
    let config = policies(
        "policies mixed --policy deferred=9,1ms --policy deferred=9,1ms --fill never \
        --platform phb5,phb5 --groups 4 --one-handle --kill-cost default --svg a --json - -q",
    );
    assert_eq!(
        (config.policies.len(), config.fills, config.platforms.len()),
        (1, vec![Fill::Never], 1)
    );
    assert!(config.one_handle && config.quiet && config.kill_cost.is_some());
    assert_eq!((config.svg, config.json), (Some(OutFile::File("a".into())), Some(OutFile::Stdout)));
    // A batch is what is usual for the work.
    assert_eq!(run("--backend mock --policy batched").policy.to_string(), "batched=32");
    assert_eq!(replay("replay a --policy batched").policy.to_string(), "batched=50us");
    assert_eq!((run("").policy, replay("replay a").policy), (Policy::Strict, Policy::Strict));
}

#[test]
fn a_kernel_and_a_platform_are_simulated() {
    use tce_engine::backend::linux::mock_kernel::Profile;
    use tce_engine::platform::Platform;
    let config = run("--backend mock-kernel --profile k4_9 --platform phb4");
    assert_eq!(config.simulated, (Profile::K4_9, Platform::Phb4));
    assert_eq!(config.output.profile, None);
    let config = run("--profile pseries");
    assert_eq!(config.backend, BackendChoice::MockKernel, "it is named, so it is meant");
    assert_eq!(config.simulated, (Profile::PSERIES, Platform::Pseries));
    assert_eq!(run("").simulated, (Profile::K6_11, Platform::Phb3));
    // The mock has no kernel that it would have to go with.
    let config = run("--backend mock --platform ioda1 --window 256M --groups 2 --containers 2");
    assert_eq!((config.backend, config.simulated.1), (BackendChoice::Mock, Platform::Ioda1));
    assert_eq!(run("--backend mock --platform phb4").simulated.1, Platform::Phb4);
    let ioda1 = "--profile k4_9 --platform ioda1 --vfio-v1 --window";
    assert_eq!(run(&format!("{ioda1} 256M")).window_bytes, 256 << 20);
    assert!(refused(&format!("{ioda1} 2G")).contains("accepted: 256M, 4K and 1 level"));
    if profile::AVAILABLE {
        let config = run("--profile k6_4 --profile cpu.pb.gz");
        assert_eq!(config.output.profile, Some(OutFile::File("cpu.pb.gz".into())));
        assert_eq!(config.simulated.0, Profile::K6_4);
    }
}

#[test]
fn kernels_and_platforms_that_are_not() {
    let error = refused("--profile K6-11");
    assert!(error.starts_with("--profile: 'K6-11' is no kernel"), "{error}");
    assert!(error.contains("perhaps k6_11 is meant; accepted: k4_2, k4_9, k4_12"), "{error}");
    assert!(error.contains("as cpu.pb.gz, - or ./K6-11"), "{error}");
    assert!(!refused("--profile xyz").contains("perhaps"));
    let error = refused("--platform phb --backend mock-kernel");
    assert!(error.contains("'phb' is no platform, perhaps phb5 is meant"), "{error}");
    let error = refused("--profile k6_11 --platform ioda1");
    assert!(
        error.contains("its support left Linux in 6.5; it runs on phb3, phb4, phb5"),
        "{error}"
    );
    let error = refused("--profile k6_11 --backend mock");
    assert_eq!(error, "--profile k6_11 is of a simulated kernel; accepted: --backend mock-kernel");
    assert!(refused("--profile k6_11 --backend vfio").contains("--backend mock-kernel"));
    assert!(refused("--platform phb3 --backend vfio").contains("--platform phb3 is of"));
    assert_eq!(refused("--platform phb3"), "--platform phb3 needs --backend mock or mock-kernel");
    let error = refused("--platform pseries --backend mock");
    assert!(error.contains("firmware's; accepted: --backend mock-kernel"), "{error}");
    assert!(refused("--profile k6_11 --platform phb4 --backend mock").contains("--profile k6_11"));
    let older = "--backend mock --groups 3 --window 256M --platform";
    for platform in ["p5ioc2", "ioda1"] {
        let error = refused(&format!("{older} {platform} --containers 2"));
        assert!(error.contains("--containers 2; accepted: --containers 3, as its PEs"), "{error}");
    }
    let error = refused("--backend mock --platform ioda1");
    assert!(error.contains("--window 2G (2147483648) is more than a PE of ioda1"), "{error}");
    assert!(error.ends_with("accepted: up to 256M"), "{error}");
    let error = refused("--profile pseries --groups 2");
    assert!(error.contains("--platform pseries with --groups 2"), "{error}");
    assert!(refused("replay a --profile k6_11").contains("a replay needs the mock"));
    assert!(refused("--profile k6_4 --profile k6_11").contains("--profile twice"));
}
