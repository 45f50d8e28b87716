//! Standard streams that were closed when the process began.
//!
//! The runtime opens `/dev/null` in place of a closed one before anything here runs, for reading
//! and writing. A shell's `</dev/null` can only be read and its `>/dev/null` only written, which
//! tells them apart. Some programs give `/dev/null` for reading and writing to what they start and
//! want to hear nothing of it; so an output counts as closed only where standard error is not such
//! a one too, and that stops only commands which are of no use without their output.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// What takes the place of a closed descriptor.
const NULL: &str = "/dev/null";

/// Whether standard input was closed.
pub fn is_input_closed() -> bool {
    was_closed(std::io::stdin().as_fd())
}

/// Whether standard output was closed.
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
    fn what_a_shell_opens_is_not_taken_for_a_closed_descriptor() {
        let open = |read, write| File::options().read(read).write(write).open(NULL).unwrap();
        assert!(!was_closed(open(true, false).as_fd()));
        assert!(!was_closed(open(false, true).as_fd()));
        assert!(was_closed(open(true, true).as_fd()));
        assert!(!was_closed(tempfile::tempfile().unwrap().as_fd()));
        let (reader, writer) = std::io::pipe().unwrap();
        assert!(!was_closed(reader.as_fd()) && !was_closed(writer.as_fd()));
    }
}
