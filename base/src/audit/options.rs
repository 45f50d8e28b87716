//! Where the audit log is, how long it gets, and whether it has writes.

use std::path::PathBuf;

/// Size of an audit file, in MiB, from which it is rotated, unless another one is given.
pub const SIZE_MIB_DEFAULT: u32 = 64;
/// Largest such size.
pub const SIZE_MIB_MAX: u32 = 1 << 20;
/// Rotated files that are kept, unless another number is given.
pub const KEEP_DEFAULT: u32 = 8;
/// Largest such number.
pub const KEEP_MAX: u32 = 1000;

/// The audit log of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditOptions {
    /// The file.
    pub path: PathBuf,
    /// Bytes that it has at most.
    pub bytes_max: u64,
    /// Number of rotated files that are kept, at least one.
    pub keep: u32,
    /// Whether it has writes of data.
    pub writes: bool,
}

impl AuditOptions {
    /// Options with the defaults.
    pub fn new(path: PathBuf) -> Self {
        Self { path, bytes_max: mib(SIZE_MIB_DEFAULT), keep: KEEP_DEFAULT, writes: false }
    }

    /// Sets the size, in MiB, from 1 to [`SIZE_MIB_MAX`].
    pub fn set_size_mib(&mut self, size: u32) {
        self.bytes_max = mib(size.clamp(1, SIZE_MIB_MAX));
    }
}

fn mib(size: u32) -> u64 {
    u64::from(size) << 20
}

#[cfg(feature = "clap")]
pub use self::command_line::{AuditArgs, UnusedAuditOption};

#[cfg(feature = "clap")]
mod command_line {
    //! The options on a command line.

    use super::{AuditOptions, KEEP_MAX, PathBuf, SIZE_MIB_MAX};
    use crate::number::whole_number;
    use crate::variables::name_of;

    /// The audit log: who did what as an administrator, and who was denied what.
    #[derive(clap::Args, Clone, Debug, Default)]
    #[group(skip)]
    pub struct AuditArgs {
        /// File for the audit log, as JSON lines: what administrators did, and who was denied what
        #[arg(long, value_name = "FILE", env = "DKV_AUDIT")]
        pub audit: Option<PathBuf>,

        /// Size from which that file is rotated, in MiB [default: 64]
        #[arg(
            long,
            value_name = "MIB",
            env = "DKV_AUDIT_SIZE",
            value_parser = whole_number(1..=SIZE_MIB_MAX)
        )]
        pub audit_size: Option<u32>,

        /// Number of rotated files to keep [default: 8]
        #[arg(
            long,
            value_name = "COUNT",
            env = "DKV_AUDIT_KEEP",
            value_parser = whole_number(1..=KEEP_MAX)
        )]
        pub audit_keep: Option<u32>,
    }

    /// An option of the audit log is given, and there is none.
    #[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
    #[error("{0} configures the audit log, but there is none: add --audit FILE, or leave it out")]
    pub struct UnusedAuditOption(String);

    impl UnusedAuditOption {
        /// Names an option of a command line, such as `--audit-size`, or the variable from which
        /// its value comes.
        pub fn of<P: clap::CommandFactory>(option: &str) -> Self {
            Self(name_of::<P>(option))
        }
    }

    /// From which the names of the variables are looked up.
    #[derive(clap::Parser)]
    struct CommandLine {
        #[command(flatten)]
        _args: AuditArgs,
    }

    impl AuditArgs {
        /// Returns the options, on top of those of a configuration file.
        ///
        /// # Errors
        /// If an option is given and there is no file.
        pub fn over(
            &self,
            configured: Option<AuditOptions>,
        ) -> Result<Option<AuditOptions>, UnusedAuditOption> {
            let mut options = match (&self.audit, configured) {
                (Some(path), Some(configured)) => AuditOptions { path: path.clone(), ..configured },
                (Some(path), None) => AuditOptions::new(path.clone()),
                (None, Some(configured)) => configured,
                (None, None) => {
                    let size = self.audit_size.map(|_| "--audit-size");
                    let unused = size.or(self.audit_keep.map(|_| "--audit-keep"));
                    let fail = |unused| Err(UnusedAuditOption::of::<CommandLine>(unused));
                    return unused.map_or(Ok(None), fail);
                }
            };
            if let Some(size) = self.audit_size {
                options.set_size_mib(size);
            }
            options.keep = self.audit_keep.unwrap_or(options.keep);
            Ok(Some(options))
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_command_line_overrides_a_file_and_is_never_without_effect() {
            let none = AuditArgs::default();
            assert_eq!(none.over(None), Ok(None));
            let sized = AuditArgs { audit_size: Some(1), ..none.clone() };
            assert_eq!(sized.over(None), Err(UnusedAuditOption("--audit-size".into())));
            let kept = AuditArgs { audit_keep: Some(2), ..none };
            assert_eq!(kept.over(None), Err(UnusedAuditOption("--audit-keep".into())));
            let configured = AuditOptions { keep: 5, ..AuditOptions::new("a".into()) };
            let both = sized.over(Some(configured.clone())).unwrap().unwrap();
            assert_eq!((both.bytes_max, both.keep), (1 << 20, 5));
            let named = AuditArgs { audit: Some("b".into()), ..kept };
            let options = named.over(Some(configured)).unwrap().unwrap();
            assert_eq!((options.path, options.keep), (PathBuf::from("b"), 2));
        }
    }
}
