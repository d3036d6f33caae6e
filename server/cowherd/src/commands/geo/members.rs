//! Commands on single members: GEOADD, GEOPOS, GEOHASH, GEODIST.

use crate::commands::call::Call;
use crate::commands::error_reply::{CommandResult, ErrorReply};
use crate::commands::sorted_sets::{self, ZaddOptions};

use super::area::{self, LengthUnit};
use super::geohash::Position;
use super::{position, unit, write_distance, write_position};

pub(super) fn geoadd(call: &mut Call<'_>) -> CommandResult {
    let mut options = ZaddOptions::default();
    let mut first = 2;
    while first < call.args.len() {
        let option = match () {
            () if call.is(first, "nx") => &mut options.nx,
            () if call.is(first, "xx") => &mut options.xx,
            () if call.is(first, "ch") => &mut options.counts_changes,
            () => break,
        };
        *option = true;
        first += 1;
    }
    let arguments = call.args.len() - first;
    if arguments == 0 || !arguments.is_multiple_of(3) || options.nx && options.xx {
        return Err(ErrorReply::SYNTAX);
    }
    let starts = (first..call.args.len()).step_by(3);
    let scores = starts.clone().map(|i| Ok(position(call, i)?.score()));
    let scores = scores.collect::<Result<Vec<f64>, ErrorReply>>()?;
    let members: Vec<&[u8]> = starts.map(|i| call.args.at(i + 2)).collect();
    sorted_sets::put_members(call, options, &scores, &members)
}

/// The positions of the members from argument 2 on, in order.
fn positions(call: &mut Call<'_>) -> Result<Vec<Option<Position>>, ErrorReply> {
    let entry = sorted_sets::lookup_read(call, 1)?;
    let view = entry.map(|entry| call.shards.sorted_set(&entry));
    let score = |member| view.as_ref().and_then(|view| view.score(member));
    Ok(call.args.from(2).iter().map(|member| score(member).map(Position::of_score)).collect())
}

pub(super) fn geopos(call: &mut Call<'_>) -> CommandResult {
    let positions = positions(call)?;
    call.reply.array(positions.len());
    for position in positions {
        match position {
            Some(position) => write_position(call.reply, &position),
            None => call.reply.null_array(),
        }
    }
    Ok(())
}

pub(super) fn geohash(call: &mut Call<'_>) -> CommandResult {
    let positions = positions(call)?;
    call.reply.array(positions.len());
    for position in positions {
        match position {
            Some(position) => call.reply.bulk(&position.text()),
            None => call.reply.null(),
        }
    }
    Ok(())
}

pub(super) fn geodist(call: &mut Call<'_>) -> CommandResult {
    let unit = match call.args.len() {
        4 => LengthUnit::METRE,
        5 => unit(call, 4)?,
        _ => return Err(ErrorReply::SYNTAX),
    };
    let entry = sorted_sets::lookup_read(call, 1)?;
    let view = entry.map(|entry| call.shards.sorted_set(&entry));
    let position = |i| view.as_ref()?.score(call.args.at(i)).map(Position::of_score);
    match (position(2), position(3)) {
        (Some(one), Some(other)) => {
            write_distance(call.reply, area::distance(&one, &other), unit);
        }
        _ => call.reply.null(),
    }
    Ok(())
}
