use std::sync::Mutex;

use super::*;

/// An output that takes nothing while it is full.
#[derive(Clone, Default)]
struct Device {
    full: Arc<AtomicBool>,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Write for Device {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        if self.full.load(Ordering::SeqCst) && !text.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.written.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn lines_that_cannot_be_written_are_counted_and_told_later() {
    let device = Device::default();
    let mut log = Log::to(device.clone()).unwrap();
    log.write_all(b"one\n").unwrap();
    log.flush();
    device.full.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        log.write_all(b"lost\n").unwrap();
    }
    log.flush();
    assert_eq!(log.lost(), 3);
    device.full.store(false, Ordering::SeqCst);
    log.write_all(b"two\n").unwrap();
    log.flush();
    assert_eq!(log.lost(), 0);
    let written = device.written.lock().unwrap();
    let expected = "one\n3 lines of the log could not be written\ntwo\n";
    assert_eq!(std::str::from_utf8(&written).unwrap(), expected);
}

/// An output that takes nothing until it is opened.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<Option<Vec<u8>>>, Condvar)>);

impl Write for Gate {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let shut = self.0.1.wait_while(self.0.0.lock().unwrap(), |open| open.is_none());
        shut.unwrap().as_mut().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_flood_of_lines_does_not_push_out_those_that_are_kept() {
    let gate = Gate::default();
    let mut log = Log::to(gate.clone()).unwrap();
    for number in 0..3 * LOG_LINES_MAX {
        log.write_all(b"flood\n").unwrap();
        if number % LOG_LINES_MAX == 0 {
            log.kept().write_all(b"administrative act\n").unwrap();
        }
    }
    for _ in 0..2 * KEPT_LINES_MAX {
        log.kept().write_all(b"flood of acts\n").unwrap();
    }
    *gate.0.0.lock().unwrap() = Some(Vec::new());
    gate.0.1.notify_all();
    log.flush();
    let written = gate.0.0.lock().unwrap().clone().unwrap();
    let written = String::from_utf8(written).unwrap();
    assert_eq!(written.matches("administrative act").count(), 3);
    assert!(written.matches("flood\n").count() <= LOG_LINES_MAX + 1);
    assert!(written.matches("flood of acts").count() < KEPT_LINES_MAX);
    assert!(written.contains("lines of the log could not be written"), "nobody learns of it");
}

#[test]
fn nobody_waits_for_a_reader_that_does_not_read() {
    struct Stuck;
    impl Write for Stuck {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            loop {
                std::thread::park();
            }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut log = Log::to(Stuck).unwrap();
    for _ in 0..2 * LOG_LINES_MAX {
        log.write_all(b"line\n").unwrap();
    }
    log.flush();
    assert!(log.lost() >= LOG_LINES_MAX as u64 - 1, "{} are lost", log.lost());
}

/// An output that panics at the first line.
struct Trap(Device, bool);

impl Write for Trap {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        assert!(self.1 || text.is_empty() || std::mem::replace(&mut self.1, true), "planned");
        self.0.write(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_log_goes_on_after_a_panic() {
    let device = Device::default();
    let mut log = Log::to(Trap(device.clone(), false)).unwrap();
    log.write_all(b"one\n").unwrap();
    log.flush();
    log.write_all(b"two\n").unwrap();
    log.flush();
    let written = device.written.lock().unwrap();
    let expected = "1 line of the log could not be written\ntwo\n";
    assert_eq!(std::str::from_utf8(&written).unwrap(), expected);
}
