//! Detects standard streams that were closed when the process started.
//!
//! The runtime replaces a closed stream by `/dev/null`, opened for reading and writing, before
//! anything here runs. A shell's `</dev/null` is open for reading only and its `>/dev/null` for
//! writing only, which tells them apart. Some programs start others with `/dev/null`, opened for
//! both, as stdout and stderr because they do not want their output. So stdout counts as closed
//! only if stderr is not such a stream too, and only commands that are useless without output stop
//! then.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// The device that replaces a closed stream.
const NULL: &str = "/dev/null";

/// Returns whether standard input was closed.
pub fn is_input_closed() -> bool {
    was_closed(std::io::stdin().as_fd())
}

/// Returns whether standard output was closed.
pub fn is_output_closed() -> bool {
    was_closed(std::io::stdout().as_fd()) && !was_closed(std::io::stderr().as_fd())
}

fn was_closed(descriptor: BorrowedFd<'_>) -> bool {
    let Ok(flags) = fcntl(descriptor, FcntlArg::F_GETFL) else { return true };
    if OFlag::from_bits_retain(flags) & OFlag::O_ACCMODE != OFlag::O_RDWR {
        return false;
    }
    let device = |file: std::io::Result<File>| Some(file.ok()?.metadata().ok()?.rdev());
    let own = device(descriptor.try_clone_to_owned().map(File::from));
    let null = std::fs::metadata(NULL).ok().map(|null| null.rdev());
    own.is_some_and(|own| own != 0) && own == null
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirections_of_a_shell_do_not_count_as_closed() {
        let open = |read, write| File::options().read(read).write(write).open(NULL).unwrap();
        assert!(!was_closed(open(true, false).as_fd()));
        assert!(!was_closed(open(false, true).as_fd()));
        assert!(was_closed(open(true, true).as_fd()));
        assert!(!was_closed(tempfile::tempfile().unwrap().as_fd()));
        let (reader, writer) = std::io::pipe().unwrap();
        assert!(!was_closed(reader.as_fd()) && !was_closed(writer.as_fd()));
    }
}
