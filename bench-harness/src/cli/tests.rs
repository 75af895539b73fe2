// SPDX-License-Identifier: Apache-2.0 OR MIT
use super::*;
use crate::outfile::OutFile;
use clap::CommandFactory;

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
    assert_eq!((config.page_shift, config.host_page_shift), (12, 16));
    assert_eq!((config.backing_bytes, config.contiguous), (2 << 20, false));
    assert_eq!((config.seed, config.memlock_bytes, config.buffer_bytes), (1, None, None));
    assert_eq!((config.simd, config.backend), (Simd::Auto, BackendChoice::Auto));
    assert_eq!((config.repetitions, config.duration, config.warmup), (None, None, None));
    assert_eq!(config.output, Output { json: None, hlog: None, label: None, quiet: false });
}

#[test]
fn every_option_of_run_arrives() {
    let config = run("run --groups 4 --containers 2 --window 0x40000000 --levels 2 --page-size \
        64KiB --host-page 4K --backing 16M --contiguous --buffer 256M --threads 2 --cpus 1,0 \
        --repetitions 3 --duration 500ms --warmup 0s --simd portable --seed 0xff --memlock 8G \
        --backend mock --json - --hlog h.hlog --label x --quiet");
    assert_eq!((config.groups, config.containers, config.threads), (4, 2, 2));
    assert_eq!((config.window_bytes, config.levels), (1 << 30, Levels::Count(2)));
    assert_eq!((config.page_shift, config.host_page_shift), (16, 12));
    assert_eq!((config.backing_bytes, config.contiguous), (16 << 20, true));
    assert_eq!((config.buffer_bytes, config.memlock_bytes), (Some(256 << 20), Some(8 << 30)));
    assert_eq!(config.cpus, Some(vec![1, 0]));
    assert_eq!(config.repetitions, Some(3));
    assert_eq!(config.duration, Some(Duration::from_millis(500)));
    assert_eq!(config.warmup, Some(Duration::ZERO));
    assert_eq!((config.simd, config.backend), (Simd::Portable, BackendChoice::Mock));
    assert_eq!(config.seed, 255);
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
    assert!(refused("--simd sse").contains("auto, portable, avx2"));
    assert!(refused("--backend hw").contains("mock, vfio, auto"));
    assert!(refused("--json - --hlog -").contains("both name '-'"));
}

#[test]
fn unknown_flags_are_one_line_with_a_tip() {
    let error = refused("--windw 2G");
    assert!(error.contains("'--windw'") && error.contains("'--window'"), "{error}");
    assert!(refused("--groups 2 replay a").contains("replay"));
    assert!(refused("rnu").contains("rnu"));
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
    assert!(help("--version").starts_with("tce-bench 0."));
}
