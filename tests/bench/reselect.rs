//! Updates that leave a large value alone: with the default replica identity the stream does not carry it, and it
//! is selected again; with `FULL` the old row has it.

use anyhow::Result;

use crate::Sizes;
use crate::parts::{catch_up, show};
use crate::sink::Sink;
use crate::source::Source;
use crate::support::sql;

/// Names table and publication.
const NAME: &str = "notes";

/// `rows` updates in transactions of `batch`, of rows with a value of 4000 bytes out of line.
pub(crate) async fn reselect(source: &Source, sizes: &Sizes) -> Result<()> {
    let Sizes { reselects: rows, batch, .. } = *sizes;
    sql::batch(
        &source.sql,
        &format!(
            "create table {NAME} (id bigint primary key, n bigint not null, body text);
             alter table {NAME} alter body set storage external;
             insert into {NAME} select n, 0, repeat(md5(n::text), 125) from generate_series(1, {rows}) n;
             create publication {NAME} for table {NAME};
             create procedure touch(rows bigint, batch bigint) language plpgsql as $$
             begin
                 for low in 1..rows by batch loop
                     update {NAME} set n = n + 1 where id >= low and id < low + batch;
                     commit;
                 end loop;
             end $$;"
        ),
    )
    .await?;
    let url = source.socket_url()?;
    for identity in ["default", "full"] {
        sql::batch(&source.sql, &format!("alter table {NAME} replica identity {identity}")).await?;
        let slot = format!("notes_{identity}");
        let sink = Sink::start()?;
        catch_up(&url, (&slot, NAME), &sink).await?;
        sql::batch(&source.sql, &format!("call touch({rows}, {batch})")).await?;
        sink.forget();
        let usage = catch_up(&url, (&slot, NAME), &sink).await?;
        source.drop_slot(&slot).await?;
        show(&format!("large value, {identity}"), rows, sink.seen(), usage)?;
    }
    Ok(())
}
