//! Files in the data directory of a server of this machine: certificates, rules for clients.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Result, bail};

use super::backend::Backend;
use super::locate;
use super::postgres::Postgres;

impl Postgres {
    /// Writes a file that only the server may read; it has to be told to read it.
    pub fn put_data_file(&self, name: &str, text: &str) -> Result<()> {
        let path = self.data_file(name)?;
        fs::write(&path, text)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        locate::give(&path, locate::server_user())
    }

    /// Puts lines before all others of `pg_hba.conf`.
    pub fn prepend_hba(&self, lines: &str) -> Result<()> {
        let rest = fs::read_to_string(self.data_file("pg_hba.conf")?)?;
        self.put_data_file("pg_hba.conf", &format!("{lines}\n{rest}"))
    }

    fn data_file(&self, name: &str) -> Result<PathBuf> {
        match self.backend() {
            Backend::Local(process) => Ok(process.directory().join("data").join(name)),
            Backend::Given | Backend::Docker(_) => bail!("this server's files are out of reach"),
        }
    }
}
