-- Defines `run`, which calls a function and returns its results or its error as text: types, bytes,
-- the order of keys and all digits of numbers.
--
-- Lua of Redis hashes all bytes of a string, Lua 5.1.5 only some of more than 31, and so tables with
-- such keys have another order. They are sorted here, as those with tables as keys.
local function quote(s)
  return '"' .. string.gsub(s, '[^%w%p ]', function(c)
    return '\\' .. string.byte(c) .. ';'
  end) .. '"'
end
local show
local function show_table(t, depth)
  if depth > 40 then return '{deep}' end
  local parts, sort = {}, false
  for k, v in pairs(t) do
    if type(k) == 'table' or type(k) == 'string' and #k > 31 then sort = true end
    if #parts > 300 then parts[#parts + 1] = 'more' break end
    parts[#parts + 1] = show(k, depth + 1) .. '=' .. show(v, depth + 1)
  end
  if sort then table.sort(parts) end
  return '{' .. table.concat(parts, ',') .. '}'
end
show = function(v, depth)
  local kind = type(v)
  if kind == 'string' then return quote(v) end
  if kind == 'number' then return string.format('%.17g', v) end
  if kind == 'table' then return show_table(v, depth) end
  if kind == 'userdata' then return tostring(v) end
  if kind == 'function' or kind == 'thread' then return kind end
  return tostring(v)
end
local function pack(...)
  return {count = select('#', ...), ...}
end
-- Lua's own pcall has room for few results, which its assertions report.
local function run(f)
  local ok, results = pcall(function() return pack(f()) end)
  if not ok then return 'error: ' .. show(results, 0) end
  local parts = {}
  for i = 1, math.min(results.count, 50) do parts[i] = show(results[i], 0) end
  return results.count .. ': ' .. table.concat(parts, ' ')
end
