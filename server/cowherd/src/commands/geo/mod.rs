//! Geo commands: the members of a sorted set as positions on the globe. A member's score is the
//! code of its position, see `geohash`.
//!
//! | file | what it holds |
//! |---|---|
//! | this one | the rows, and arguments and replies that several commands have |
//! | `members` | GEOADD, GEOPOS, GEOHASH, GEODIST |
//! | `search` | GEOSEARCH, GEOSEARCHSTORE and the GEORADIUS commands |
//! | `query` | the arguments of searches |
//! | `geohash` | positions, cells and their codes, without the keyspace |
//! | `area` | distances, and the cells that cover an area |

mod area;
mod geohash;
mod members;
mod query;
mod search;
#[cfg(test)]
mod tests;

use cowherd_resp::{ReplyWriter, parse_f64};

use super::call::Call;
use super::error_reply::ErrorReply;
use super::table::{Command, CommandFlags, CommandGroup, KeyPositions, KeyUse};

use area::LengthUnit;
use geohash::Position;
use members::{geoadd, geodist, geohash, geopos};
use search::{
    georadius, georadius_ro, georadiusbymember, georadiusbymember_ro, geosearch, geosearchstore,
};

const READ: CommandFlags = CommandFlags::READONLY;
const WRITE: CommandFlags = CommandFlags::WRITE.with(CommandFlags::DENYOOM);
const ONE: KeyPositions = KeyPositions::ONE;

const GROUP: CommandGroup = CommandGroup::Geo;

pub(super) const COMMANDS: &[Command] = &[
    Command::new("geoadd", -5, WRITE, geoadd)
        .doc(GROUP, "3.2.0", "Adds members, or changes their positions.")
        .keys(ONE, KeyUse::UPDATE)
        .syntax(
            "key condition:[NX|XX]@6.2.0 [change:CH@6.2.0] data:(longitude:double latitude:double \
             member)...",
        ),
    Command::new("geodist", -4, READ, geodist)
        .doc(GROUP, "3.2.0", "Returns the distance between two members.")
        .keys(ONE, KeyUse::READ)
        .syntax("key member1 member2 unit:[M|KM|FT|MI]"),
    Command::new("geohash", -2, READ, geohash)
        .doc(GROUP, "3.2.0", "Returns the positions of members as geohashes.")
        .keys(ONE, KeyUse::READ)
        .syntax("key [member...]"),
    Command::new("geopos", -2, READ, geopos)
        .doc(GROUP, "3.2.0", "Returns the positions of members.")
        .keys(ONE, KeyUse::READ)
        .syntax("key [member...]"),
    Command::new("geosearch", -7, READ, geosearch)
        .doc(GROUP, "6.2.0", "Lists the members in a circle or a box.")
        .keys(ONE, KeyUse::READ)
        .syntax(
            "key from:(FROMMEMBER member|FROMLONLAT longitude:double latitude:double) \
             by:(circle:((BYRADIUS radius:double) unit:(M|KM|FT|MI))\
             |box:((BYBOX width:double) height:double unit:(M|KM|FT|MI))) order:[ASC|DESC] \
             count-block:[(COUNT count) [ANY]] [WITHCOORD] [WITHDIST] [WITHHASH]",
        ),
    Command::new("geosearchstore", -8, WRITE, geosearchstore)
        .doc(GROUP, "6.2.0", "Stores the members in a circle or a box.")
        .keys(KeyPositions::TWO, KeyUse::OVERWRITE)
        .other_keys(KeyUse::READ)
        .syntax(
            "destination source \
             from:(FROMMEMBER member|FROMLONLAT longitude:double latitude:double) \
             by:(circle:((BYRADIUS radius:double) unit:(M|KM|FT|MI))\
             |box:((BYBOX width:double) height:double unit:(M|KM|FT|MI))) order:[ASC|DESC] \
             count-block:[(COUNT count) [ANY]] [STOREDIST]",
        ),
    Command::new("georadius", -6, WRITE, georadius)
        .doc(GROUP, "3.2.0", "Lists or stores the members within a distance of a position.")
        .deprecated("6.2.0", "`GEOSEARCH` and `GEOSEARCHSTORE` with the option `BYRADIUS`")
        .keys(KeyPositions::one_and_stored(6), KeyUse::READ)
        .other_keys(KeyUse::OVERWRITE)
        .syntax(
            "key longitude:double latitude:double radius:double unit:(M|KM|FT|MI) [WITHCOORD] \
             [WITHDIST] [WITHHASH] count-block:[(COUNT count) [ANY@6.2.0]] order:[ASC|DESC] \
             store:[STORE storekey:key=key#1|STOREDIST storedistkey:key=key#2]",
        ),
    Command::new("georadiusbymember", -5, WRITE, georadiusbymember)
        .doc(GROUP, "3.2.0", "Lists or stores the members within a distance of a member.")
        .deprecated(
            "6.2.0",
            "`GEOSEARCH` and `GEOSEARCHSTORE` with the options `BYRADIUS` and `FROMMEMBER`",
        )
        .keys(KeyPositions::one_and_stored(5), KeyUse::READ)
        .other_keys(KeyUse::OVERWRITE)
        .syntax(
            "key member radius:double unit:(M|KM|FT|MI) [WITHCOORD] [WITHDIST] [WITHHASH] \
             count-block:[(COUNT count) [ANY]] order:[ASC|DESC] \
             store:[STORE storekey:key=key#1|STOREDIST storedistkey:key=key#2]",
        ),
    Command::new("georadius_ro", -6, READ, georadius_ro)
        .doc(GROUP, "3.2.10", "Lists the members within a distance of a position.")
        .deprecated("6.2.0", "`GEOSEARCH` with the option `BYRADIUS`")
        .keys(ONE, KeyUse::READ)
        .syntax(
            "key longitude:double latitude:double radius:double unit:(M|KM|FT|MI) [WITHCOORD] \
             [WITHDIST] [WITHHASH] count-block:[(COUNT count) [ANY@6.2.0]] order:[ASC|DESC]",
        ),
    Command::new("georadiusbymember_ro", -5, READ, georadiusbymember_ro)
        .doc(GROUP, "3.2.10", "Lists the members within a distance of a member.")
        .deprecated("6.2.0", "`GEOSEARCH` with the options `BYRADIUS` and `FROMMEMBER`")
        .keys(ONE, KeyUse::READ)
        .syntax(
            "key member radius:double unit:(M|KM|FT|MI) [WITHCOORD] [WITHDIST] [WITHHASH] \
             count-block:[(COUNT count) [ANY]] order:[ASC|DESC]",
        ),
];

const NO_UNIT: ErrorReply =
    ErrorReply::new("ERR unsupported unit provided. please use M, KM, FT, MI");

/// The position in arguments `i` and `i + 1`: longitude, latitude.
fn position(call: &Call<'_>, i: usize) -> Result<Position, ErrorReply> {
    let degrees = |i| parse_f64(call.args.at(i)).ok_or(ErrorReply::NOT_FLOAT);
    let position = Position { longitude: degrees(i)?, latitude: degrees(i + 1)? };
    if position.is_valid() {
        return Ok(position);
    }
    let Position { longitude, latitude } = position;
    let text = format!("ERR invalid longitude,latitude pair {longitude:.6},{latitude:.6}");
    Err(ErrorReply::text(text))
}

/// The unit in argument `i`.
fn unit(call: &Call<'_>, i: usize) -> Result<LengthUnit, ErrorReply> {
    LengthUnit::named(call.args.at(i)).ok_or(NO_UNIT)
}

/// Appends a distance given in metres, with four decimals.
fn write_distance(reply: &mut ReplyWriter, metres: f64, unit: LengthUnit) {
    #[expect(clippy::cast_possible_truncation, reason = "at most half the girth of the globe")]
    let scaled = (metres / unit.metres * 1e4).round_ties_even() as i64;
    reply.bulk_str(&format!("{}.{:04}", scaled / 10_000, scaled % 10_000));
}

/// Appends an array of longitude and latitude, with up to 17 decimals.
fn write_position(reply: &mut ReplyWriter, position: &Position) {
    reply.array(2);
    for degrees in [position.longitude, position.latitude] {
        let text = format!("{degrees:.17}");
        let text = text.trim_end_matches('0').trim_end_matches('.');
        reply.double_text(text.as_bytes());
    }
}
