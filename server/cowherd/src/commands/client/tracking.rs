//! CLIENT TRACKING, CACHING, GETREDIR and TRACKINGINFO: client-side caching. What it does is in
//! `clients::tracking`.

use crate::clients::{Prefix, ReadTracking, Tracker, TrackingOptions};
use crate::commands::call::Call;
use crate::commands::error_reply::{CommandResult, ErrorReply};

const TWO_REDIRECTS: ErrorReply =
    ErrorReply::new("ERR A client can only redirect to a single other client");
const NO_SUCH_CLIENT: ErrorReply =
    ErrorReply::new("ERR The client ID you want redirect to does not exist");
const PREFIX_WITHOUT_BCAST: ErrorReply =
    ErrorReply::new("ERR PREFIX option requires BCAST mode to be enabled");
const OTHER_BCAST: ErrorReply = ErrorReply::new(
    "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then \
     re-enabling it with a different mode.",
);
const OTHER_OPT: ErrorReply = ErrorReply::new(
    "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then \
     re-enabling it with a different mode.",
);
const OPT_WITH_BCAST: ErrorReply =
    ErrorReply::new("ERR OPTIN and OPTOUT are not compatible with BCAST");
const BOTH_OPTS: ErrorReply =
    ErrorReply::new("ERR You can't specify both OPTIN mode and OPTOUT mode");
const NOT_IN_OPT_MODE: ErrorReply = ErrorReply::new(
    "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or \
     OPTOUT mode enabled",
);
const YES_WITHOUT_OPTIN: ErrorReply =
    ErrorReply::new("ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.");
const NO_WITHOUT_OPTOUT: ErrorReply =
    ErrorReply::new("ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.");

/// `CLIENT TRACKING ON|OFF [REDIRECT id] [PREFIX prefix ...] [BCAST] [OPTIN] [OPTOUT] [NOLOOP]`
pub(super) fn tracking(call: &mut Call<'_>) -> CommandResult {
    let mut options = parse_options(call)?;
    if call.is(2, "off") {
        call.shared.tracking.disable(call.session, &call.shared.keyspace);
    } else if call.is(2, "on") {
        let tracker = call.shared.tracking.tracker(call.session.client.id);
        let old = tracker.as_ref().map(|tracker| &tracker.options);
        check_options(&options, old)?;
        if options.broadcast {
            add_prefixes(&mut options, old.map_or(&[], |old| &old.prefixes))?;
        }
        call.shared.tracking.enable(call.session, &call.shared.keyspace, options);
    } else {
        return Err(ErrorReply::SYNTAX);
    }
    call.reply.ok();
    Ok(())
}

fn parse_options(call: &Call<'_>) -> Result<TrackingOptions, ErrorReply> {
    let mut options = TrackingOptions::default();
    let mut i = 3;
    while i < call.args.len() {
        let has_value = i + 1 < call.args.len();
        if call.is(i, "redirect") && has_value {
            if options.redirect.is_some() {
                return Err(TWO_REDIRECTS);
            }
            let id = u64::try_from(call.integer(i + 1)?).map_err(|_| NO_SUCH_CLIENT)?;
            call.shared.clients.get(id).ok_or(NO_SUCH_CLIENT)?;
            options.redirect = Some(id);
            i += 1;
        } else if call.is(i, "prefix") && has_value {
            options.prefixes.push(call.args.at(i + 1).into());
            i += 1;
        } else if call.is(i, "bcast") {
            options.broadcast = true;
        } else if call.is(i, "optin") {
            options.opt_in = true;
        } else if call.is(i, "optout") {
            options.opt_out = true;
        } else if call.is(i, "noloop") {
            options.no_loop = true;
        } else {
            return Err(ErrorReply::SYNTAX);
        }
        i += 1;
    }
    Ok(options)
}

/// Checks options with each other and with those in force.
fn check_options(options: &TrackingOptions, old: Option<&TrackingOptions>) -> CommandResult {
    let TrackingOptions { broadcast, opt_in, opt_out, .. } = *options;
    if !options.prefixes.is_empty() && !broadcast {
        return Err(PREFIX_WITHOUT_BCAST);
    }
    if old.is_some_and(|old| old.broadcast != broadcast) {
        return Err(OTHER_BCAST);
    }
    if broadcast && (opt_in || opt_out) {
        return Err(OPT_WITH_BCAST);
    }
    if opt_in && opt_out {
        return Err(BOTH_OPTS);
    }
    if old.is_some_and(|old| opt_in && old.opt_out || opt_out && old.opt_in) {
        return Err(OTHER_OPT);
    }
    Ok(())
}

/// Adds the prefixes in force to new ones, of which none may be the begin of another. Without any
/// prefix all keys are meant.
fn add_prefixes(options: &mut TrackingOptions, old: &[Prefix]) -> CommandResult {
    for (i, prefix) in options.prefixes.iter().enumerate() {
        let known = overlapping(prefix, old).map(|other| (other, "an existing"));
        let provided = || {
            overlapping(prefix, &options.prefixes[i + 1..]).map(|other| (other, "another provided"))
        };
        if let Some((other, which)) = known.or_else(provided) {
            return Err(ErrorReply::quoting(&[
                b"ERR Prefix '",
                prefix,
                b"' overlaps with ",
                which.as_bytes(),
                b" prefix '",
                other,
                b"'. Prefixes for a single client must not overlap.",
            ]));
        }
    }
    if options.prefixes.is_empty() {
        options.prefixes.push(Box::default());
    }
    options.prefixes.extend_from_slice(old);
    options.prefixes.sort_unstable();
    options.prefixes.dedup();
    Ok(())
}

/// The first of `prefixes` with which some key begins that begins with `prefix` too.
fn overlapping<'p>(prefix: &[u8], prefixes: &'p [Prefix]) -> Option<&'p Prefix> {
    prefixes.iter().find(|other| prefix.starts_with(other) || other.starts_with(prefix))
}

/// `CLIENT CACHING YES|NO`
pub(super) fn caching(call: &mut Call<'_>) -> CommandResult {
    let tracking = &mut call.session.read_tracking;
    if !matches!(tracking, ReadTracking::OptIn { .. } | ReadTracking::OptOut { .. }) {
        return Err(NOT_IN_OPT_MODE);
    }
    let is = |word: &[u8]| call.args.at(2).eq_ignore_ascii_case(word);
    *tracking = match tracking {
        ReadTracking::OptIn { .. } if is(b"yes") => ReadTracking::OptIn { caching: true },
        ReadTracking::OptOut { .. } if is(b"no") => ReadTracking::OptOut { caching: false },
        _ if is(b"yes") => return Err(YES_WITHOUT_OPTIN),
        _ if is(b"no") => return Err(NO_WITHOUT_OPTOUT),
        _ => return Err(ErrorReply::SYNTAX),
    };
    call.reply.ok();
    Ok(())
}

/// `CLIENT GETREDIR`
pub(super) fn get_redirect(call: &mut Call<'_>) -> CommandResult {
    let tracker = call.shared.tracking.tracker(call.session.client.id);
    call.reply.integer(redirect(tracker.as_deref()));
    Ok(())
}

/// The number of the client that gets a client's messages: 0 for itself, -1 if it does not track.
pub(super) fn redirect(tracker: Option<&Tracker>) -> i64 {
    tracker.map_or(-1, Tracker::redirect)
}

/// `CLIENT TRACKINGINFO`
pub(super) fn tracking_info(call: &mut Call<'_>) -> CommandResult {
    let tracker = call.shared.tracking.tracker(call.session.client.id);
    let redirect = redirect(tracker.as_deref());
    let mut flags = Vec::new();
    let mut prefixes: &[Prefix] = &[];
    match &tracker {
        None => flags.push("off"),
        Some(tracker) => {
            let options = &tracker.options;
            let caching = call.session.read_tracking;
            let is_broken = tracker.is_redirect_broken();
            let named = [
                (true, "on"),
                (options.broadcast, "bcast"),
                (options.opt_in, "optin"),
                (caching == ReadTracking::OptIn { caching: true }, "caching-yes"),
                (options.opt_out, "optout"),
                (caching == ReadTracking::OptOut { caching: false }, "caching-no"),
                (options.no_loop, "noloop"),
                (is_broken, "broken_redirect"),
            ];
            flags.extend(named.into_iter().filter(|(on, _)| *on).map(|(_, name)| name));
            prefixes = &options.prefixes;
        }
    }
    call.reply.map(3);
    call.reply.bulk(b"flags");
    call.reply.set(flags.len());
    flags.iter().for_each(|flag| call.reply.bulk_str(flag));
    call.reply.bulk(b"redirect");
    call.reply.integer(redirect);
    call.reply.bulk(b"prefixes");
    call.reply.array(prefixes.len());
    prefixes.iter().for_each(|prefix| call.reply.bulk(prefix));
    Ok(())
}
