//! Generates the messages and services of etcd's interface from `proto/`: their encoding with
//! prost, their services with tonic, and their JSON form with pbjson. Needs no `protoc`.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

use prost::Message;

/// The files; each names its package.
const FILES: [&str; 5] =
    ["auth.proto", "kv.proto", "rpc.proto", "v3election.proto", "v3lock.proto"];
/// The packages, of which every message has a JSON form.
const PACKAGES: [&str; 5] = [".authpb", ".etcdserverpb", ".mvccpb", ".v3electionpb", ".v3lockpb"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut descriptors = protox::compile(FILES, ["proto"])?;
    // Comments in it are for readers of the files, and are in no way part of the interface.
    for file in &mut descriptors.file {
        file.source_code_info = None;
    }
    let encoded = descriptors.encode_to_vec();
    let out = env::var("OUT_DIR")?;
    fs::write(Path::new(&out).join("descriptors.bin"), &encoded)?;
    tonic_prost_build::configure().build_transport(false).bytes(".").compile_fds(descriptors)?;
    pbjson_build::Builder::new()
        .register_descriptors(&encoded)?
        .preserve_proto_field_names()
        .ignore_unknown_fields()
        .build(&PACKAGES)?;
    Ok(())
}
