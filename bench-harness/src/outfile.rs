// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Writes a result file whole or not at all.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions, Permissions, TryLockError};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::anyhow;

use crate::steps::{Step, tell};

/// Where a result goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutFile {
    /// `-`: standard output.
    Stdout,
    /// A file, replaced in one step.
    File(PathBuf),
}

impl From<&str> for OutFile {
    fn from(argument: &str) -> Self {
        if argument == "-" { Self::Stdout } else { Self::File(argument.into()) }
    }
}

impl OutFile {
    /// Finds out before a long run whether [`OutFile::write`] can work: the directory exists and
    /// a file can be made in it. Leaves nothing behind.
    ///
    /// # Errors
    /// One line with the path and the reason.
    pub fn check(&self) -> Result<(), String> {
        let Self::File(path) = self else { return Ok(()) };
        match Target::of(path)? {
            // A FIFO would block until its reader comes; that is for the real write.
            Target::Special => Ok(()),
            Target::Regular(real) => temporary(&real).map(drop).map_err(|e| unreplaced(path, &e)),
        }
    }

    /// Writes `content`. A regular file is replaced by a rename after everything is on disk, so
    /// that it holds the old content or the new, never a part.
    ///
    /// # Errors
    /// One line with the path and the reason, as a full disk or a missing directory.
    pub fn write(&self, content: &[u8]) -> Result<(), String> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(content)
                    .and_then(|()| out.flush())
                    .map_err(|error| format!("cannot write to standard output: {}", plain(&error)))
            }
            Self::File(path) => match Target::of(path)? {
                Target::Special => write_special(path, content).map_err(|e| refused(path, &e)),
                Target::Regular(real) => replace(&real, content).map_err(|e| unreplaced(path, &e)),
            },
        }
    }
}

/// Where a file's content goes, piece by piece.
pub type Pieces<'a> = &'a mut dyn Write;

impl OutFile {
    /// Writes what `fill` writes, piece by piece, packed by zstd if the name ends in `.zst`. As with
    /// [`OutFile::write`], a regular file is replaced only after everything is on disk, and not at all if
    /// `fill` fails or says that it was interrupted.
    ///
    /// # Errors
    /// What `fill` says, or one line with the path and the reason.
    pub fn stream<T>(
        &self,
        fill: impl FnOnce(Pieces<'_>) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<Option<T>> {
        match self {
            Self::Stdout => {
                let name = "standard output";
                let wrong = |error: io::Error| anyhow!("cannot write to {name}: {}", plain(&error));
                filled(io::stdout().lock(), false, wrong, fill).map(|(done, _)| done)
            }
            Self::File(path) => {
                let packed = path.extension().is_some_and(|name| name == "zst");
                match Target::of(path).map_err(|e| anyhow!(e))? {
                    Target::Special => {
                        let wrong = |error: io::Error| anyhow!(refused(path, &error));
                        let file = OpenOptions::new().write(true).open(path).map_err(wrong)?;
                        filled(file, packed, wrong, fill).map(|(done, _)| done)
                    }
                    Target::Regular(real) => {
                        let wrong = |error: io::Error| anyhow!(unreplaced(path, &error));
                        let file = temporary(&real).map_err(wrong)?;
                        let (done, file) = filled(file, packed, wrong, fill)?;
                        if done.is_some() {
                            keep(file, &real).map_err(wrong)?;
                        }
                        Ok(done)
                    }
                }
            }
        }
    }
}

/// How hard zstd tries: traces shrink to a tenth or less at any level, and this one keeps up with reading.
const ZSTD_LEVEL: i32 = 9;

/// Has `fill` write to `file`, and gives both back. An error of `file` is told as `wrong` tells it.
fn filled<W: Write, T>(
    file: W,
    packed: bool,
    wrong: impl Fn(io::Error) -> anyhow::Error,
    fill: impl FnOnce(Pieces<'_>) -> anyhow::Result<Option<T>>,
) -> anyhow::Result<(Option<T>, W)> {
    // Only an error of the file itself is one of writing; others are fill's.
    let told = |error: anyhow::Error| match error.downcast::<io::Error>() {
        Ok(error) => wrong(error),
        Err(error) => error,
    };
    let unbuffered = |file: BufWriter<W>| file.into_inner().map_err(|e| wrong(e.into_error()));
    let mut file = BufWriter::with_capacity(128 << 10, file);
    let (done, mut file) = if packed {
        let mut packer = zstd::Encoder::new(file, ZSTD_LEVEL).map_err(&wrong)?;
        packer.include_checksum(true).map_err(&wrong)?;
        let done = fill(&mut packer).map_err(told)?;
        (done, unbuffered(packer.finish().map_err(&wrong)?)?)
    } else {
        let done = fill(&mut file).map_err(told)?;
        (done, unbuffered(file)?)
    };
    file.flush().map_err(wrong)?;
    Ok((done, file))
}

/// What a path leads to.
enum Target {
    /// A device, FIFO or socket: nothing that a rename may replace.
    Special,
    /// A regular file, there or not, with symbolic links followed: a link stays a link.
    Regular(PathBuf),
}

impl Target {
    fn of(path: &Path) -> Result<Self, String> {
        if path.as_os_str().is_empty() {
            return Err("cannot write '': the name is empty; accepted: a file name or '-'".into());
        }
        match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => {
                Err(format!("cannot write '{}': it is a directory", path.display()))
            }
            Ok(meta) => {
                let kind = meta.file_type();
                if kind.is_char_device()
                    || kind.is_block_device()
                    || kind.is_fifo()
                    || kind.is_socket()
                {
                    return Ok(Self::Special);
                }
                let real = fs::canonicalize(path).map_err(|error| refused(path, &error))?;
                Ok(Self::Regular(real))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let parent = directory(path);
                if !parent.is_dir() {
                    return Err(format!(
                        "cannot write '{}': the directory '{}' does not exist",
                        path.display(),
                        parent.display()
                    ));
                }
                Ok(Self::Regular(path.to_path_buf()))
            }
            Err(error) => Err(refused(path, &error)),
        }
    }
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// How the names of temporary files begin and end.
const TEMPORARY: [&str; 2] = [".tce-bench-", ".tmp"];

/// True for the name of a temporary file.
pub(crate) fn is_temporary(name: &OsStr) -> bool {
    name.to_str().is_some_and(|n| n.starts_with(TEMPORARY[0]) && n.ends_with(TEMPORARY[1]))
}

/// A file beside the target: a rename works only within one file system. It is locked as long as its
/// writer lives. What writers that were killed have left in the directory is removed.
fn temporary(path: &Path) -> io::Result<tempfile::NamedTempFile> {
    // Like any other new file: 0666 less the umask; tempfile's own default is 0600.
    let mode = fs::metadata(path).map_or(0o666, |meta| meta.permissions().mode() & 0o777);
    let directory = directory(path);
    sweep(directory);
    loop {
        let file = tempfile::Builder::new()
            .prefix(TEMPORARY[0])
            .suffix(TEMPORARY[1])
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(directory)?;
        match file.as_file().try_lock() {
            // Before it was locked, somebody else's sweep may have taken it for one that was left.
            Ok(()) if file.as_file().metadata()?.nlink() == 0 => {}
            Err(TryLockError::WouldBlock) => {}
            // Where nothing can be locked, nothing is swept.
            Ok(()) | Err(TryLockError::Error(_)) => return Ok(file),
        }
    }
}

/// Removes temporary files that nobody holds. What cannot be removed stays.
fn sweep(directory: &Path) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| is_temporary(&entry.file_name())) {
        let plain = entry.file_type().is_ok_and(|kind| kind.is_file());
        let mut options = OpenOptions::new();
        let options = options.write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        if plain && options.open(entry.path()).is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = temporary(path)?;
    file.write_all(content)?;
    keep(file, path)
}

/// Gives a temporary file its name, once it is on disk.
fn keep(file: tempfile::NamedTempFile, path: &Path) -> io::Result<()> {
    tell(Step::Write);
    // Some file systems report a full disk only here.
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    // The new name must survive a crash too; not every file system can sync a directory.
    if let Ok(parent) = fs::File::open(directory(path)) {
        let _ = parent.sync_all();
    }
    Ok(())
}

fn write_special(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.write_all(content)?;
    file.flush()
}

fn refused(path: &Path, error: &io::Error) -> String {
    format!("cannot write '{}': {}", path.display(), plain(error))
}

/// The same of a file that would have been replaced; if there is no room, with what to do.
fn unreplaced(path: &Path, error: &io::Error) -> String {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let advice = if full {
        "; nothing was changed there: make room, or name a file on another disk"
    } else {
        ""
    };
    refused(path, error) + advice
}

/// The reason alone: no "(os error 28)", and not tempfile's " at path" with its random name.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    text.split(" at path").next().unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<String> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn to(path: &Path) -> OutFile {
        OutFile::from(path.to_str().unwrap())
    }

    #[test]
    fn a_file_is_replaced_whole_and_nothing_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.json");
        to(&path).check().unwrap();
        assert!(names(dir.path()).is_empty(), "the check left something behind");
        to(&path).write(b"one, which is longer").unwrap();
        to(&path).write(b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names(dir.path()), ["out.json"]);
        assert_ne!(fs::metadata(&path).unwrap().permissions().mode() & 0o400, 0);
    }

    #[test]
    fn what_a_killed_writer_left_goes_with_the_next_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.json");
        let live = temporary(&path).unwrap();
        // As after a kill: the name is there, and nobody holds it.
        for name in [".tce-bench-killed.tmp", ".tce-bench-x.json", "tce-bench-x.tmp"] {
            fs::write(dir.path().join(name), "half").unwrap();
        }
        let mut kept = vec![
            live.path().file_name().unwrap().to_str().unwrap().to_owned(),
            ".tce-bench-x.json".to_owned(),
            "out.json".to_owned(),
            "tce-bench-x.tmp".to_owned(),
        ];
        kept.sort();
        to(&path).write(b"whole").unwrap();
        assert_eq!(names(dir.path()), kept);
        drop(live);
        assert_eq!(names(dir.path()).len(), 3);
    }

    #[test]
    fn a_stream_is_kept_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.zst");
        to(&path).stream(|out| Ok(Some(out.write_all(&[7; 400_000])?))).unwrap().unwrap();
        let packed = fs::read(&path).unwrap();
        assert_eq!(zstd::decode_all(packed.as_slice()).unwrap(), [7; 400_000]);
        // Neither an error nor an interrupt leaves anything, or takes the old file away.
        let half = |out: Pieces<'_>| out.write_all(b"half").map_err(anyhow::Error::from);
        to(&path).stream(|out| half(out).map(|()| None::<()>)).unwrap();
        let failed = to(&path).stream(|out| -> anyhow::Result<Option<()>> {
            half(out)?;
            anyhow::bail!("the input is wrong")
        });
        assert_eq!(failed.unwrap_err().to_string(), "the input is wrong");
        assert_eq!(fs::read(&path).unwrap(), packed);
        assert_eq!(names(dir.path()), ["out.zst"]);
        let plain = dir.path().join("out");
        to(&plain).stream(|out| Ok(Some(out.write_all(b"plain")?))).unwrap().unwrap();
        assert_eq!(fs::read(&plain).unwrap(), b"plain");
        let full = OutFile::from("/dev/full").stream(|out| Ok(Some(out.write_all(b"x")?)));
        let error = full.unwrap_err().to_string();
        assert_eq!(error, "cannot write '/dev/full': No space left on device");
    }

    #[test]
    fn a_link_stays_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::write(&real, "old").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        to(&link).write(b"new").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&real).unwrap(), b"new");
    }

    #[test]
    fn a_full_device_is_one_clear_line() {
        let error = OutFile::from("/dev/full").write(b"x").unwrap_err();
        assert_eq!(error, "cannot write '/dev/full': No space left on device");
        OutFile::from("/dev/null").check().unwrap();
        OutFile::from("/dev/null").write(b"x").unwrap();
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    }

    #[test]
    fn a_missing_directory_and_a_directory_are_refused_early() {
        let dir = tempfile::tempdir().unwrap();
        for act in [OutFile::check, |out: &OutFile| out.write(b"x")] {
            let error = act(&to(&dir.path().join("no/out.json"))).unwrap_err();
            assert!(error.contains("no' does not exist"), "{error}");
            let error = act(&to(dir.path())).unwrap_err();
            assert!(error.ends_with("it is a directory"), "{error}");
            let file = dir.path().join("file");
            fs::write(&file, "").unwrap();
            let error = act(&to(&file.join("out.json"))).unwrap_err();
            assert!(error.contains("Not a directory") && !error.contains('\n'), "{error}");
            assert!(act(&OutFile::from("")).is_err());
        }
    }

    #[test]
    fn a_pipe_is_written_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        if !made.is_ok_and(|status| status.success()) {
            return; // no mkfifo on this machine
        }
        let reader = std::thread::spawn({
            let path = path.clone();
            move || fs::read(path).unwrap()
        });
        to(&path).write(b"through the pipe").unwrap();
        assert_eq!(reader.join().unwrap(), b"through the pipe");
        assert!(fs::metadata(&path).unwrap().file_type().is_fifo());
    }

    #[test]
    fn a_dash_is_standard_output() {
        assert_eq!(OutFile::from("-"), OutFile::Stdout);
        OutFile::Stdout.check().unwrap();
    }
}
