//! Limits of memory and nesting.

use crate::{lua, run};

/// Runs `test` on a thread with little stack, which recursion over all levels would exceed.
fn with_small_stack(test: fn()) {
    std::thread::Builder::new().stack_size(1 << 20).spawn(test).unwrap().join().unwrap();
}

#[test]
fn nesting_is_an_error_at_the_limit_of_luas_stack() {
    with_small_stack(|| {
        let lua = lua();
        let table = [
            (
                "local c = cjson.new() c.decode_max_depth(2^31 - 1)
                 return c.decode(string.rep('[', 1e6))",
                "Found too many nested data structures (7999) at character 7999",
            ),
            (
                "local c = cjson.new() c.decode_max_depth(2^31 - 1)
                 return c.decode(string.rep('{\"a\":', 1e6))",
                "Found too many nested data structures (4000) at character 19996",
            ),
            (
                "local c, t = cjson.new(), {} c.encode_max_depth(2^31 - 1) t[1] = t
                 return c.encode(t)",
                "Cannot serialise, excessive nesting (7998)",
            ),
            (
                "local c, t = cjson.new(), {} c.encode_max_depth(2^31 - 1) t.a = t
                 return c.encode(t)",
                "Cannot serialise, excessive nesting (4000)",
            ),
            (
                "return cmsgpack.unpack(string.rep('\\145', 1e6))",
                "stack overflow (in function mp_decode_to_lua_array)",
            ),
        ];
        for (body, expected) in table {
            let found = run(&lua, body);
            assert!(found.ends_with(&format!("{expected}\"")), "{body}: {found}");
        }
    });
}

#[test]
fn deep_values_survive_a_round_trip() {
    with_small_stack(|| {
        let lua = lua();
        let body = "
            local c = cjson.new() c.decode_max_depth(8000) c.encode_max_depth(8000)
            local text = string.rep('[', 7000) .. '1' .. string.rep(']', 7000)
            local objects = string.rep('{\"k\":', 3500) .. 'true' .. string.rep('}', 3500)
            local packed = string.rep('\\145', 3900) .. '\\7'
            local value, levels = cmsgpack.unpack(packed), 0
            while type(value) == 'table' do value, levels = value[1], levels + 1 end
            return c.encode(c.decode(text)) == text, c.encode(c.decode(objects)) == objects,
                   levels, value";
        assert_eq!(run(&lua, body), "4: true true 3900 7");
    });
}

#[test]
fn large_results_meet_the_memory_limit() {
    let lua = lua();
    lua.set_memory_limit(8 << 20).unwrap();
    let bodies = [
        "local c = cjson.new() c.encode_sparse_array(true, 0) return c.encode({[2^31 - 1] = 1})",
        "local s = string.rep('\\1', 1e6) return cjson.encode({s, s, s})",
        "return cjson.decode('[' .. string.rep('{},', 3e5) .. '1]')",
        "return cjson.decode('\"' .. string.rep('\\\\n', 2e6) .. '\"')",
        "return cmsgpack.unpack('\\221\\0\\15\\0\\0' .. string.rep('\\144', 1e6))",
        "local s = string.rep('x', 1e6) return cmsgpack.pack(s, s, s, s, s, s, s)",
        "local s = string.rep('x', 1e6) return struct.pack('ssssss', s, s, s, s, s, s)",
    ];
    for body in bodies {
        let script = format!("return pcall(function() {body} end)");
        let (ok, error): (bool, mlua::Value) = lua.load(script).eval().unwrap();
        assert!(!ok, "{body}");
        assert_eq!(error.to_string().unwrap(), "not enough memory", "{body}");
        lua.gc_collect().unwrap();
    }
    assert_eq!(
        run(&lua, "return cjson.encode({1, 'a'}), cmsgpack.pack('a')"),
        r#"2: "[1,"a"]" "\161;a""#
    );
}

#[test]
fn failed_calls_leave_no_memory_behind() {
    let lua = lua();
    let body = "for i = 1, 300 do
            pcall(cjson.encode, {string.rep('x', 1e5), function() end})
            pcall(cjson.decode, '[[[[\"' .. string.rep('\\\\t', 1e4) .. '\", x')
            pcall(cmsgpack.unpack, '\\146' .. string.rep('\\145', 100))
        end";
    run(&lua, body);
    lua.gc_collect().unwrap();
    let before = lua.used_memory();
    run(&lua, body);
    lua.gc_collect().unwrap();
    let after = lua.used_memory();
    assert!(after < before + 10_000, "{before} bytes grew to {after}");
}

/// A finalizer runs during an allocation of the encoder, and calls the encoder, which must not
/// write to the buffer that is in use.
#[test]
fn an_encoder_inside_of_an_encoder_has_its_own_buffer() {
    let lua = lua();
    let body = "
        local inner = 0
        local function trap()
          local proxy = newproxy(true)
          getmetatable(proxy).__gc = function()
            inner = inner + 1
            cjson.encode({string.rep('inner', 3000)})
            trap()
          end
        end
        trap()
        local value = {}
        for i = 1, 300 do value[i] = string.rep('outer', 100) end
        local expected = '[\"' .. table.concat(value, '\",\"') .. '\"]'
        local wrong = 0
        for i = 1, 300 do
          if cjson.encode(value) ~= expected then wrong = wrong + 1 end
        end
        return wrong, inner > 0";
    assert_eq!(run(&lua, body), "2: 0 true");
}
