pub(crate) async fn run(
    _args: crate::cli::Local,
    _connect: crate::cli::Connect,
    _screen: &mut crate::screen::Screen,
) -> std::process::ExitCode {
    std::process::ExitCode::FAILURE
}
