//! The examples of the help.

pub(super) const EXAMPLES: &str = "\
Commands in upper case; several run in order:
  R,<key>          print the value of a key
  W,<key>,<value>  store a value, which may contain commas
  D,<key>          remove a key
  H,<key>          list the versions of a key
  T,<ms>           wait
or in words: get KEY, put KEY VALUE [if-absent]; several, each in quotes: \"put a 1\" \"get a\"

Examples:
  dkv local --nodes 3                             a network on this machine
  dkv W,color,blue R,color                        write, then read
  dkv                                             a prompt; from a pipe, one command per line
  dkv put \"a key\" @FILE                           store a file; - means standard input
  dkv 10.0.0.1:4400 status                        the state of another network
  dkv scan user/ --limit 10 --output json         keys in order, for programs
  dkv watch user/ --previous                      changes as they happen, until Ctrl-C
  dkv load words.txt --verify                     store the records of a file, then verify them
  dkv help token create                           the help of a command

ADDRESS is HOST or HOST:PORT of the registration server, or several, separated by commas.
The default is the variable DKV_SERVER, or the server that this user runs on this machine.

Exit status (the most serious of several commands):
  0  done                      5  unavailable; nothing was changed
  1  failed                    6  outcome unknown: a change may have happened
  2  wrong command line        7  denied
  3  key not found             8  written, but not on every replica (level all)
  4  conflict: a condition was not met    10, 11  doctor: warnings; something critical";
