-- One snippet per line: an expression, or the body of a function with a `return`.
cjson.encode({1,2,{a=1}})
cjson.encode(1,2)
cjson.encode()
{pcall(cjson.encode)}
{pcall(cjson.encode,1,2)}
cjson.decode()
cjson.decode('x')
{pcall(cjson.decode,'x')}
local ok,e=pcall(function() return cjson.decode('x') end) return e
local ok,e=pcall(function() local z= cjson.decode('x') return z end) return e
local d=cjson.decode return d({})
cjson.decode(12)
cjson.decode('')
cjson.decode('[1,2')
cjson.decode('[1,2}')
cjson.decode('{1')
cjson.decode('{"a" 1')
cjson.decode('{"a":1 "b"')
cjson.decode('{"a":1,}')
cjson.decode('{"a":}')
cjson.decode('[1,]')
cjson.decode('["abc')
cjson.decode('["ab\\qc')
cjson.decode('["ab\\u12g4c')
cjson.decode('["ab\\ud800c"]')
cjson.decode('["ab\\ud800\\u0041c"]')
cjson.decode('["\\udc00"]')
cjson.decode('["\\ud83d\\ude00"]')
cjson.decode('["\\u0000x"]')
cjson.decode('["a\0b"]')
cjson.decode('["a\1b"]')
cjson.decode('"a\0b"')
cjson.decode('1 \0 xxx')
cjson.decode('\0 xxx')
cjson.decode('1 2')
cjson.decode('1 :')
cjson.decode('1 null')
cjson.decode('1 "a"')
cjson.decode('1 true')
cjson.decode('1 [')
cjson.decode('1 ]')
cjson.decode('1 {')
cjson.decode('1 }')
cjson.decode('1 ,')
cjson.decode(',')
tostring(cjson.decode('0x10'))
tostring(cjson.decode('-0x1p4'))
tostring(cjson.decode('nan'))
tostring(cjson.decode('-nan'))
tostring(cjson.decode('NaN(12)'))
tostring(cjson.decode('inf'))
tostring(cjson.decode('-Infinity'))
tostring(cjson.decode('+1'))
tostring(cjson.decode('+'))
tostring(cjson.decode('-'))
tostring(cjson.decode('- 1'))
tostring(cjson.decode('.5'))
tostring(cjson.decode('5.'))
tostring(cjson.decode('1e'))
tostring(cjson.decode('1e+'))
tostring(cjson.decode('1e400'))
tostring(cjson.decode('01'))
tostring(cjson.decode('-01'))
tostring(cjson.decode('00x1'))
tostring(cjson.decode('-.5'))
tostring(cjson.decode('i'))
tostring(cjson.decode('0x'))
tostring(cjson.decode('0xg'))
tostring(cjson.decode('0x.8'))
tostring(cjson.decode('0x1p'))
tostring(cjson.decode('0x.p1'))
tostring(cjson.decode('-0'))
tostring(cjson.decode('infi'))
tostring(cjson.decode('nan(ab'))
cjson.encode({[1]=1,[3]=3})
cjson.encode({[1]=1,[30]=3})
cjson.encode({[10]=1})
cjson.encode({[11]=1})
cjson.encode({[21]=1,[1]=1})
cjson.encode({[1.5]=1})
cjson.encode({[0]=1})
cjson.encode({[-1]=1,a=2})
cjson.encode({[1e10]=1})
cjson.encode({[3e9]=1})
cjson.encode({[4294967297]=1})
cjson.encode({[4294967297]=1,[1]=2})
cjson.encode({[1/0]=1})
cjson.encode({[true]=1})
cjson.encode({[{}]=1})
cjson.encode(coroutine.create(function() end))
cjson.encode(0/0)
cjson.encode(1/0)
cjson.encode({-1/0})
cjson.encode({1.5,0.1,1e15,1e14,123456789012345,99999999999999,1e-5,1e-4,0.1+0.2,-0,1e100,2^53, 1/3,-1e-7,5e-324,1.7976931348623157e308})
cjson.encode(-0)
cjson.encode('\0\1\8\9\10\11\12\13\27\31 "\\/\127\128\255é')
cjson.encode({['a/b']=1})
cjson.encode(cjson.null)
cjson.encode(nil)
cjson.encode({nil,1})
cjson.encode({a=nil})
cjson.encode({[1]=cjson.null})
cjson.encode({[1.25]=1,x=2})
cjson.encode({[1e15]='x',a=1})
local c=cjson.new() return {c.encode_sparse_array()}
local c=cjson.new() return {c.encode_sparse_array(true)}
local c=cjson.new() return {tostring(c.encode_sparse_array(true)),tostring(c.encode_sparse_array('off'))}
local c=cjson.new() return {c.encode_sparse_array(true,2,3,4)}
local c=cjson.new() return {c.encode_sparse_array(1)}
local c=cjson.new() return {c.encode_sparse_array('on',-1)}
local c=cjson.new() return {c.encode_sparse_array('on',0,-1)}
local c=cjson.new() return {c.encode_sparse_array('on',0,2^31)}
local c=cjson.new() return {c.encode_sparse_array('on',0,2^31-1)}
local c=cjson.new() return {c.encode_sparse_array('on','x',1)}
local c=cjson.new() return {c.encode_sparse_array('maybe')}
local c=cjson.new() return {c.encode_max_depth()}
local c=cjson.new() return {c.encode_max_depth(0)}
local c=cjson.new() return {c.encode_max_depth(1.5)}
local c=cjson.new() return {c.encode_max_depth(-1)}
local c=cjson.new() return {c.encode_max_depth('5')}
local c=cjson.new() return {c.encode_max_depth('x')}
local c=cjson.new() return {c.encode_max_depth({})}
local c=cjson.new() return {c.encode_max_depth(1e20)}
local c=cjson.new() return {c.encode_max_depth(4294967297)}
local c=cjson.new() return {c.encode_max_depth(2147483648)}
local c=cjson.new() return {c.decode_max_depth()}
local c=cjson.new() return {c.decode_max_depth(1,2)}
local c=cjson.new() return {c.encode_number_precision()}
local c=cjson.new() return {c.encode_number_precision(17)}
local c=cjson.new() return {c.encode_number_precision(0)}
local c=cjson.new() return {c.encode_number_precision(16)}
local c=cjson.new() return {c.encode_number_precision(15)}
local c=cjson.new() return {c.encode_number_precision(14)}
local c=cjson.new() c.encode_number_precision(3) return c.encode({1/3,1234,12345,0.00012345,1e10,999.5,9999,100})
local c=cjson.new() c.encode_number_precision(1) return c.encode({1/3,1234,12345,0.00012345,1e10,9.5,95,9,2.5,3.5})
local c=cjson.new() return {tostring(c.encode_keep_buffer())}
local c=cjson.new() return {tostring(c.encode_keep_buffer(false)),c.encode({1}),tostring(c.encode_keep_buffer('on'))}
local c=cjson.new() return {tostring(c.encode_keep_buffer('x'))}
local c=cjson.new() return {tostring(c.encode_invalid_numbers()), tostring(c.decode_invalid_numbers())}
local c=cjson.new() return {tostring(c.encode_invalid_numbers(true)), c.encode({1/0,-1/0,0/0,-(0/0)})}
local c=cjson.new() return {tostring(c.encode_invalid_numbers('null')), c.encode({1/0,-1/0,0/0,-(0/0)})}
local c=cjson.new() return {tostring(c.encode_invalid_numbers('on'))}
local c=cjson.new() return {tostring(c.encode_invalid_numbers('off'))}
local c=cjson.new() return {tostring(c.encode_invalid_numbers('zz'))}
local c=cjson.new() return {tostring(c.encode_invalid_numbers(1))}
local c=cjson.new() return {tostring(c.encode_invalid_numbers({}))}
local c=cjson.new() return {tostring(c.decode_invalid_numbers(false)), c.decode('nan')}
local c=cjson.new() c.decode_invalid_numbers(false) return c.decode('0x10')
local c=cjson.new() c.decode_invalid_numbers(false) return c.decode('-0x10')
local c=cjson.new() c.decode_invalid_numbers(false) return c.decode('01')
local c=cjson.new() c.decode_invalid_numbers(false) return c.decode('-inf')
local c=cjson.new() c.decode_invalid_numbers(false) return c.decode('-nan')
local c=cjson.new() c.decode_invalid_numbers(false) return c.decode('+1')
local c=cjson.new() c.decode_invalid_numbers(false) return c.decode('-x')
local c=cjson.new() c.decode_invalid_numbers(false) return c.decode('--1')
local c=cjson.new() c.decode_invalid_numbers(false) return c.decode('inf')
local c=cjson.new() c.decode_invalid_numbers(false) return c.decode('-')
local c=cjson.new() c.decode_invalid_numbers(false) return c.decode('-+1')
local c=cjson.new() c.decode_invalid_numbers(false) return tostring(c.decode('-.5'))
local c=cjson.new() c.decode_invalid_numbers(false) return tostring(c.decode('-0'))
local c=cjson.new() c.decode_invalid_numbers(false) return tostring(c.decode('0e1'))
local c=cjson.new() return {tostring(c.decode_invalid_numbers('null'))}
local c=cjson.new() return {c.decode_invalid_numbers(1,2)}
local c=cjson.new(1,2,3) return {tostring(c.null),c._NAME,c._VERSION}
local c=cjson.new() c.encode_max_depth(2) return c.encode({{{}}})
local c=cjson.new() c.encode_max_depth(2) return c.encode({{}})
local c=cjson.new() c.decode_max_depth(2) return c.decode('[[[1]]]')
local c=cjson.new() c.decode_max_depth(2) return c.decode('[[{"a":[]}]]')
local t={} t[1]=t return cjson.encode(t)
local t={} t.a=t return cjson.encode(t)
local c=cjson.new() c.encode_max_depth(2^31-1) local t={} t[1]=t return c.encode(t)
local c=cjson.new() c.encode_max_depth(2^31-1) local t={} t.a=t return c.encode(t)
local c=cjson.new() c.decode_max_depth(2^31-1) return c.decode(string.rep('[',100000))
local c=cjson.new() c.decode_max_depth(2^31-1) return c.decode(string.rep('{"a":',100000))
return cjson.decode(string.rep('[',100000))
return cjson.decode(string.rep('[',1000)..string.rep(']',1000))[1] and 1
return cjson.decode(string.rep('[',1001)..string.rep(']',1001))[1] and 1
local c=cjson.new() c.encode_sparse_array(true) return c.encode({[100]=1})
local c=cjson.new() c.encode_sparse_array(true) return c.encode({[100]=1,[1]=2})
local c=cjson.new() c.encode_sparse_array(false,0) return #c.encode({[100]=1})
local c=cjson.new() c.encode_sparse_array(false,2,3) return c.encode({[3]=1})
local c=cjson.new() c.encode_sparse_array(false,2,3) return c.encode({[4]=1})
local c=cjson.new() c.encode_sparse_array(false,2,3) return c.encode({[4]=1,[1]=1})
local c=cjson.new() c.encode_sparse_array(false,1,3) return c.encode({[4]=1,[1]=1,[2]=1})
local c=cjson.new() c.encode_sparse_array(true,2^31-1,3) return c.encode({[4]=1,[1]=1,[2]=1})
local c=cjson.new() c.encode_sparse_array(true,2^30,3) return c.encode({[4]=1,[1]=1,[2]=1,[3]=1,[9]=9})
cjson.encode({[2147483647]=1})
cjson.encode({[2147483648]=1})
cjson.encode({[2147483649]=1})
cjson.encode({[2147483648]=1,[2]=1})
cjson.encode({[2147483648]=1,[20]=1})
cjson.encode({[1]=1,[2147483648]=1,[20]=1})
{pcall(cjson.encode,{[100]=1})}
local ok,e=pcall(function() cjson.encode({[100]=1}) end) return e
cjson.encode({{[100]=1}})
cjson.encode({a={[100]=1}})
cjson.encode(setmetatable({},{__index={1,2,3}}))
cjson.encode(setmetatable({1},{__len=function() return 5 end}))
cjson.decode('\239\187\191[1]')
cjson.decode('a\0')
cjson.decode('"')
cjson.decode('\0\0')
cjson.decode('0\0')
cjson.decode('[\0')
cjson.decode('[ \0')
tostring(cjson.decode('  \t\r\n null  '))
cjson.decode('\11 1')
cjson.decode('tru')
cjson.decode('truex')
cjson.decode('nulll')
cjson.decode('[truefalse]')
cjson.decode('n')
cjson.decode('"\\')
cjson.decode('"\\u')
cjson.decode('"\\u00')
cjson.decode('"\\ud800\\')
cjson.decode('"\\/\\b\\f\\n\\r\\t\\"\\\\"')
cjson.decode('"\\u0041\\u00e9\\u20ac\\uffff\\ud7ff\\ue000\\uABCD"')
cjson.decode('"\\ud800\\u00"')
cjson.decode('{"a":1,"a":2}').a
cjson.decode('{"a":null}').a == cjson.null
tostring(cjson.decode('{"1":5}')['1'])
cjson.decode("[1e308,1e309,123456789012345678]")
tostring(cjson.decode('123456789012345678901234567890'))
tostring(cjson.decode('0x123456789abcdef01234'))
tostring(cjson.decode('0x1.8p1'))
tostring(cjson.decode('0x1p99999'))
tostring(cjson.decode('0x1p-99999'))
tostring(cjson.decode('1e-400'))
tostring(cjson.decode('1.5.5'))
{cjson.decode('NULL')}
tostring(cjson.decode('INF'))
tostring(cjson.decode('Nan'))
tostring(cjson.decode('-Nan()'))
tostring(cjson.decode('T'))
{pcall(cjson.encode,unpack({1,2,3},1,3))}
cjson.encode.x
local a,b=pcall(cjson.encode_max_depth,'x') return b
local t=1 for i=1,997 do t=i%2==0 and {t} or {a=t} end return cjson.encode(t)
local t=1 for i=1,1000 do t=i%2==0 and {t} or {a=t} end return cjson.encode(t)
local t=1 for i=1,1001 do t=i%2==0 and {t} or {a=t} end return cjson.encode(t)
local c,r=cjson.new(),{} c.encode_max_depth(9999) for n=5328,5338 do local t=1 for i=1,n do t=i%2==0 and {t} or {a=t} end local ok,e=pcall(c.encode,t) r[#r+1]=ok and #e or e end return r
local c,r=cjson.new(),{} c.encode_max_depth(9999) for n=4794,4804 do local t=1 for i=1,n do t=i%3==0 and {t} or {a=t} end local ok,e=pcall(c.encode,t) r[#r+1]=ok and #e or e end return r
local c,r=cjson.new(),{} c.encode_max_depth(9999) for n=7990,8002 do local t=1 for i=1,n do t={t} end local ok,e=pcall(c.encode,t) r[#r+1]=ok and #e or e end return r
local c,r=cjson.new(),{} c.decode_max_depth(9999) for n=7990,8002 do local ok,e=pcall(c.decode,string.rep('[',n)..'1'..string.rep(']',n)) r[#r+1]=ok or e end return r
local c,r=cjson.new(),{} c.encode_max_depth(9999) for n=3994,4003 do local t=1 for i=1,n do t={a=t} end local ok,e=pcall(c.encode,t) r[#r+1]=ok and #e or e end return r
local c,r=cjson.new(),{} c.decode_max_depth(9999) for n=3994,4003 do local ok,e=pcall(c.decode,string.rep('{"a":',n)..'1'..string.rep('}',n)) r[#r+1]=ok or e end return r
local c,r=cjson.new(),{} c.decode_max_depth(9999) for n=2660,2670 do local ok,e=pcall(c.decode,string.rep('[{"a":',n)..'1'..string.rep('}]',n)) r[#r+1]=ok or e end return r
local c=cjson.new() c.encode_keep_buffer(false) return c.encode({string.rep('a',5000)}), c.encode({string.rep('b',100)})
local r={} for i=0,255 do r[#r+1]=cjson.encode(string.char(i)) end return r
local r={} for i=0,255 do local ok,e=pcall(cjson.decode,'"\\'..string.char(i)..'"') r[#r+1]=e end return r
local r={} for i=0,255 do local ok,e=pcall(cjson.decode,'[1,'..string.char(i)..'1]') r[#r+1]=ok and e[2] or e end return r
local r={} for i=0,255 do local ok,e=pcall(cjson.decode,'1'..string.char(i)) r[#r+1]=e end return r
local c,r=cjson.new(),{} c.decode_invalid_numbers(false) for i=0,255 do local ok,e=pcall(c.decode,'[-'..string.char(i)..'1]') r[#r+1]=ok and e[1] or e end return r
local r={} for i=0,255 do local ok,e=pcall(cjson.decode,'[-'..string.char(i)..'1]') r[#r+1]=ok and e[1] or e end return r
local r={} for p=1,14 do local c=cjson.new() c.encode_number_precision(p) r[p]=c.encode({1/3,2/3,1e10,123456789.987654321,1e-10,0.5,0.25,0.125,99999999,1.5,2.5,1e22,1e23,0.1,5e-5,9.995,9.5}) end return r
