-- One snippet per line: an expression, or the body of a function with a `return`.
cmsgpack.pack()
{pcall(cmsgpack.pack)}
cmsgpack.pack(nil)
cmsgpack.pack(nil,true,false,1,-1,'a')
cmsgpack.pack(127,128,255,256,65535,65536,4294967295,4294967296,2^53,2^62)
cmsgpack.pack(-1,-32,-33,-128,-129,-32768,-32769,-2147483648,-2147483649,-2^53,-2^63)
cmsgpack.pack(2^63,2^64,1e300,-2^64)
cmsgpack.pack(1.5,0.1,1/0,-1/0,0/0,-0,1e38,1e39,-(0/0))
cmsgpack.pack(string.rep('a',31)):sub(1,5)
cmsgpack.pack(string.rep('a',32)):sub(1,5)
cmsgpack.pack(string.rep('a',255)):sub(1,5)
cmsgpack.pack(string.rep('a',256)):sub(1,5)
cmsgpack.pack(string.rep('a',65535)):sub(1,5)
cmsgpack.pack(string.rep('a',65536)):sub(1,6)
cmsgpack.pack({})
cmsgpack.pack({1,2,3})
cmsgpack.pack({a=1})
cmsgpack.pack({1,nil,3})
cmsgpack.pack({[2]=1})
cmsgpack.pack({[1]=1,[2]=2,a=1})
cmsgpack.pack({[1.5]=1})
cmsgpack.pack({[0]=1})
cmsgpack.pack({[true]=1})
cmsgpack.pack({[{}]=1})
cmsgpack.pack({[2^40]=1})
cmsgpack.pack({[1/0]=1})
cmsgpack.pack(cjson.null)
cmsgpack.pack(cmsgpack.pack)
cmsgpack.pack({function() end,1})
local t={} t[1]=t return cmsgpack.pack(t)
local t={} t.a=t return cmsgpack.pack(t)
local t={} for i=1,15 do t[i]=i end return cmsgpack.pack(t)
local t={} for i=1,16 do t[i]=i end return cmsgpack.pack(t)
local t={} for i=1,16 do t['k'..i]=i end return cmsgpack.pack(t)
local t={} for i=1,65536 do t[i]=1 end return cmsgpack.pack(t):sub(1,10)
local t={} for i=1,65536 do t['a'..i]=1 end return cmsgpack.pack(t):sub(1,5)
cmsgpack.pack(setmetatable({},{__index={1,2,3}}))
cmsgpack.pack(setmetatable({1,2},{__index=function() return 7 end}))
local t={} for i=1,9000 do t[i]=i end return cmsgpack.pack(unpack(t,1,7990)):len()
local t={} for i=1,9000 do t[i]=i end return {pcall(cmsgpack.pack,unpack(t,1,7990))}
cmsgpack.unpack()
{cmsgpack.unpack('')}
cmsgpack.unpack({})
cmsgpack.unpack(12)
{cmsgpack.unpack('\1\2\3')}
{cmsgpack.unpack('\1\2\3','x','y')}
cmsgpack.unpack('\193')
{pcall(cmsgpack.unpack,'\193')}
cmsgpack.unpack('\1\193')
cmsgpack.unpack('\200\1\1\1')
cmsgpack.unpack('\201')
cmsgpack.unpack('\212')
cmsgpack.unpack('\216')
cmsgpack.unpack('\199\0')
cmsgpack.unpack('\195')
{cmsgpack.unpack('\194\192\195')}
cmsgpack.unpack('\196\3abc')
cmsgpack.unpack('\197\0\3abc')
cmsgpack.unpack('\198\0\0\0\3abc')
cmsgpack.unpack('\217\3abc')
cmsgpack.unpack('\218\0\3abc')
cmsgpack.unpack('\219\0\0\0\3abc')
cmsgpack.unpack('\219\255\255\255\255abc')
cmsgpack.unpack('\219\128\0\0\0abc')
cmsgpack.unpack('\163ab')
cmsgpack.unpack('\163abc')
tostring(cmsgpack.unpack('\207\255\255\255\255\255\255\255\255'))
tostring(cmsgpack.unpack('\207\128\0\0\0\0\0\0\0'))
tostring(cmsgpack.unpack('\211\128\0\0\0\0\0\0\0'))
tostring(cmsgpack.unpack('\206\255\255\255\255'))
tostring(cmsgpack.unpack('\210\255\255\255\255'))
tostring(cmsgpack.unpack('\202\63\128\0\0'))
tostring(cmsgpack.unpack('\203\63\240\0\0\0\0\0\0'))
tostring(cmsgpack.unpack('\203\255\248\0\0\0\0\0\0'))
cmsgpack.unpack('\203\63')
cmsgpack.unpack('\204')
cmsgpack.unpack('\221\255\255\255\255')
cmsgpack.unpack('\221\127\255\255\255')
cmsgpack.unpack('\223\255\255\255\255')
cmsgpack.unpack('\220\0\2\1\2')
cmsgpack.unpack('\129\192\1')
{pcall(cmsgpack.unpack,'\129\192\1')}
cmsgpack.unpack('\129\203\255\248\0\0\0\0\0\0\1')
cmsgpack.unpack('\129\1\192')
cmsgpack.unpack('\129\144\1')
cmsgpack.unpack('\129\1')
cmsgpack.unpack('\129')
cmsgpack.unpack('\146\1')
cmsgpack.unpack('\146\1\193')
{cmsgpack.unpack_one('\1\2\3')}
{cmsgpack.unpack_one('\1\2\3',1)}
{cmsgpack.unpack_one('\1\2\3',2)}
{cmsgpack.unpack_one('\1\2\3',3)}
{cmsgpack.unpack_one('\1\2\3',4)}
{cmsgpack.unpack_one('\1\2\3',-1)}
{cmsgpack.unpack_one('\1\2\3','1')}
{cmsgpack.unpack_one('\1\2\3','x')}
{cmsgpack.unpack_one('\1\2\3',nil)}
{cmsgpack.unpack_one('\1\2\3',1,5,6)}
{cmsgpack.unpack_one()}
{cmsgpack.unpack_one('\1\2\3',4294967297)}
{cmsgpack.unpack_one('\1\2\3',2147483648)}
{cmsgpack.unpack_one('\1\2\3',1.9)}
{cmsgpack.unpack_one('')}
{cmsgpack.unpack_one({})}
{cmsgpack.unpack_one(5)}
{cmsgpack.unpack_limit('\1\2\3')}
{cmsgpack.unpack_limit('\1\2\3',2)}
{cmsgpack.unpack_limit('\1\2\3',0)}
{cmsgpack.unpack_limit('\1\2\3',0,1)}
{cmsgpack.unpack_limit('\1\2\3',2,1)}
{cmsgpack.unpack_limit('\1\2\3',3,1)}
{cmsgpack.unpack_limit('\1\2\3',-1,1)}
{cmsgpack.unpack_limit('\1\2\3',1,-1)}
{cmsgpack.unpack_limit('\1\2\3',-5,-1)}
{cmsgpack.unpack_limit('\1\2\3',1,9)}
{cmsgpack.unpack_limit('\1\2\3','a',9)}
{cmsgpack.unpack_limit('\1\2\3',1,'z')}
{cmsgpack.unpack_limit('\1\2\3',4294967296)}
{cmsgpack.unpack_limit('\1\2\3',1,2,3,4)}
{cmsgpack.unpack_limit()}
{cmsgpack.unpack_limit('')}
{cmsgpack.unpack_limit('',1)}
#{cmsgpack.unpack(string.rep('\1',7990))}
#{cmsgpack.unpack(string.rep('\1',7998))}
#{cmsgpack.unpack(string.rep('\1',7999))}
#{cmsgpack.unpack(string.rep('\1',8000))}
#{cmsgpack.unpack(string.rep('\1',10000))}
{pcall(cmsgpack.unpack,string.rep('\1',10000))}
local t={pcall(cmsgpack.unpack_limit,string.rep('\1',10000),8000)} return {#t,t[1],t[2],t[3]}
cmsgpack.unpack(string.rep('\145',100000))
cmsgpack.unpack(string.rep('\129\1',100000))
{pcall(cmsgpack.unpack,string.rep('\145',100000))}
{pcall(cmsgpack.unpack,string.rep('\145',3000)..'\1')}
{pcall(cmsgpack.unpack,string.rep('\145',3990)..'\1')}
{pcall(cmsgpack.unpack,string.rep('\145',3995)..'\1')}
{pcall(cmsgpack.unpack,string.rep('\145',3996)..'\1')}
{pcall(cmsgpack.unpack,string.rep('\145',3997)..'\1')}
{pcall(cmsgpack.unpack,string.rep('\145',3998)..'\1')}
{pcall(cmsgpack.unpack,string.rep('\145',3999)..'\1')}
{pcall(cmsgpack.unpack,string.rep('\145',4000)..'\1')}
{pcall(cmsgpack.unpack,string.rep('\129\1',3000)..'\1')}
{pcall(cmsgpack.unpack,string.rep('\129\1',3996)..'\1')}
{pcall(cmsgpack.unpack,string.rep('\129\1',3997)..'\1')}
{pcall(cmsgpack.unpack,string.rep('\129\1',3998)..'\1')}
{pcall(cmsgpack.unpack,string.rep('\129\1',3999)..'\1')}
{pcall(cmsgpack.unpack,string.rep('\129\1',4000)..'\1')}
{pcall(cmsgpack.unpack,string.rep('\129\1',4001)..'\1')}
cmsgpack.unpack(string.rep('\129',100000))
cmsgpack.unpack(string.rep('\129\145',100000))
{pcall(cmsgpack.unpack,string.rep('\129',5000))}
cmsgpack.pack({[1]=1,[2]=2,[3.5]=1})
cmsgpack.pack({1,2,[4]=4})
cmsgpack.pack({[3]=3,[2]=2,[1]=1})
local a,b=pcall(cmsgpack.unpack,string.rep('\1',10000)) return type(b)=="string" and b or "ok"
local a,b=pcall(cmsgpack.unpack,string.rep('\145',100000)) return type(b)=="string" and b or "ok"
local a,b=pcall(cmsgpack.unpack,string.rep('\145',3000)..'\1') return type(b)=="string" and b or "ok"
local a,b=pcall(cmsgpack.unpack,string.rep('\145',3990)..'\1') return type(b)=="string" and b or "ok"
local a,b=pcall(cmsgpack.unpack,string.rep('\145',3995)..'\1') return type(b)=="string" and b or "ok"
local a,b=pcall(cmsgpack.unpack,string.rep('\145',3996)..'\1') return type(b)=="string" and b or "ok"
local a,b=pcall(cmsgpack.unpack,string.rep('\145',3997)..'\1') return type(b)=="string" and b or "ok"
local a,b=pcall(cmsgpack.unpack,string.rep('\145',3998)..'\1') return type(b)=="string" and b or "ok"
local a,b=pcall(cmsgpack.unpack,string.rep('\145',3999)..'\1') return type(b)=="string" and b or "ok"
local a,b=pcall(cmsgpack.unpack,string.rep('\145',4000)..'\1') return type(b)=="string" and b or "ok"
local a,b=pcall(cmsgpack.unpack,string.rep('\129\1',3000)..'\1') return type(b)=="string" and b or "ok"
local a,b=pcall(cmsgpack.unpack,string.rep('\129\1',3996)..'\1') return type(b)=="string" and b or "ok"
local a,b=pcall(cmsgpack.unpack,string.rep('\129\1',3997)..'\1') return type(b)=="string" and b or "ok"
local a,b=pcall(cmsgpack.unpack,string.rep('\129\1',3998)..'\1') return type(b)=="string" and b or "ok"
local a,b=pcall(cmsgpack.unpack,string.rep('\129\1',3999)..'\1') return type(b)=="string" and b or "ok"
local a,b=pcall(cmsgpack.unpack,string.rep('\129\1',4000)..'\1') return type(b)=="string" and b or "ok"
local a,b=pcall(cmsgpack.unpack,string.rep('\129\1',4001)..'\1') return type(b)=="string" and b or "ok"
local a,b=pcall(cmsgpack.unpack,string.rep('\129',5000)) return type(b)=="string" and b or "ok"
local a,b=pcall(cmsgpack.unpack,string.rep('\129\145',5000)) return b
local a,b=pcall(cmsgpack.unpack,string.rep('\129\1\145',5000)) return b
local a,b=pcall(cmsgpack.unpack,string.rep('\145',3998)..'\193') return b
local a,b=pcall(cmsgpack.unpack_one,string.rep('\145',3999)..'\193') return b
local a,b=pcall(cmsgpack.unpack_limit,string.rep('\145',3999)..'\193',1,0) return b
local a,b=pcall(cmsgpack.unpack,string.rep('\145',3999)..'\193') return b
local a,b=pcall(cmsgpack.unpack,string.rep('\145',4000)..'\193') return b
local a,b=pcall(cmsgpack.unpack,string.rep('\145',3999)..'\193','x') return b
local a,b=pcall(cmsgpack.unpack,string.rep('\145',3998)..'\193','x','y') return b
local a,b=pcall(cmsgpack.unpack,'\1\1\1'..string.rep('\145',3999)..'\193') return b
local a,b=pcall(cmsgpack.unpack,'\1\1\1'..string.rep('\145',3998)..'\193') return b
local a,b=pcall(cmsgpack.unpack,'\1\1\1'..string.rep('\145',3997)..'\193') return b
local a,b=pcall(cmsgpack.unpack,'\1\1\1'..string.rep('\145',3996)..'\193') return b
local a,b=pcall(cmsgpack.unpack,string.rep('\129\1',3998)..'\193') return b
local a,b=pcall(cmsgpack.unpack,string.rep('\129\1',2665)..'\193') return b
local a,b=pcall(cmsgpack.unpack,string.rep('\129\1',2666)..'\193') return b
local a,b=pcall(cmsgpack.unpack,string.rep('\129\1',2667)..'\193') return b
local a,b=pcall(cmsgpack.unpack,string.rep('\129',2666)..'\193') return b
local a,b=pcall(cmsgpack.unpack,string.rep('\129',3998)..'\193') return b
local a,b=pcall(cmsgpack.unpack,string.rep('\129',3999)..'\193') return b
local a,b=pcall(cmsgpack.unpack,string.rep('\129',4000)..'\193') return b
local a,b=pcall(cmsgpack.unpack,string.rep('\129',7997)..'\193') return b
local a,b=pcall(cmsgpack.unpack,string.rep('\129',7998)..'\193') return b
local a,b=pcall(cmsgpack.unpack,string.rep('\129',7999)..'\193') return b
local a,b=pcall(cmsgpack.unpack,string.rep('\129',8000)..'\193') return b
local t={} for i=1,3998 do t[i]=i end t[3999]={{{{{{{{{{{{{}}}}}}}}}}}}} local a,b=pcall(cmsgpack.pack,unpack(t)) return b
local t={} for i=1,3998 do t[i]=i end t[3999]={{{{{{}}}}}} local a,b=pcall(cmsgpack.pack,unpack(t)) return b
local t={} for i=1,3998 do t[i]=i end t[3999]={{}} local a,b=pcall(cmsgpack.pack,unpack(t)) return b
local t={} for i=1,3998 do t[i]=i end t[3999]={a={b={c={d={}}}}} local a,b=pcall(cmsgpack.pack,unpack(t)) return b
local t={} for i=1,4000 do t[i]=i end  local a,b=pcall(cmsgpack.pack,unpack(t)) return b and 1
local a,b=pcall(cmsgpack.unpack,string.rep('\129',5000)) return b
local r={} for i=0,255 do local ok,a,b=pcall(cmsgpack.unpack_one,string.char(i)..string.rep('\0',40)) r[#r+1]={ok,a,b} end return r
local r={} for i=0,255 do local ok,a,b=pcall(cmsgpack.unpack_one,string.char(i)) r[#r+1]={ok,a,b} end return r
local r={} for n=3970,4000 do local t={} for i=1,n do t[i]=i end t[n]={{{{{{a={b={c={{}}}}}}}}}} local ok,e=pcall(cmsgpack.pack,unpack(t)) r[#r+1]=ok and #e or e end return r
local r={} for n=3970,4000 do local t={} for i=1,n do t[i]=i end t[n-5]={{{{{{a={b={c={{}}}}}}}}}} local ok,e=pcall(cmsgpack.pack,unpack(t)) r[#r+1]=ok and #e or e end return r
local r={} for n=3970,4000 do local t={} for i=1,n do t[i]=i end t[n]={a={[{[{1}]=2}]=string.rep('x',2000)}} local ok,e=pcall(cmsgpack.pack,unpack(t)) r[#r+1]=ok and #e or e end return r
local r={} for n=2655,2670 do local ok,e=pcall(cmsgpack.unpack,string.rep('\145',n)..'\193') r[#r+1]=e end return r
local r={} for n=3990,4005 do local ok,e=pcall(cmsgpack.unpack,string.rep('\145',n)..'\193') r[#r+1]=e end return r
local r={} for n=7990,8005 do local ok,e=pcall(cmsgpack.unpack,string.rep('\145',n)..'\193') r[#r+1]=e end return r
local r={} for n=2655,2670 do local ok,e=pcall(cmsgpack.unpack,string.rep('\129',n)..'\193') r[#r+1]=e end return r
local r={} for n=3990,4005 do local ok,e=pcall(cmsgpack.unpack,string.rep('\129',n)..'\193') r[#r+1]=e end return r
local r={} for n=7990,8005 do local ok,e=pcall(cmsgpack.unpack,string.rep('\129',n)..'\193') r[#r+1]=e end return r
local r={} for n=2655,2670 do local ok,e=pcall(cmsgpack.unpack,string.rep('\129\1',n)..'\193') r[#r+1]=e end return r
local r={} for n=3990,4005 do local ok,e=pcall(cmsgpack.unpack,string.rep('\129\1',n)..'\193') r[#r+1]=e end return r
local r={} for n=7990,8005 do local ok,e=pcall(cmsgpack.unpack,string.rep('\129\1',n)..'\193') r[#r+1]=e end return r
local r={} for n=2655,2670 do local ok,e=pcall(cmsgpack.unpack,string.rep('\129\145',n)..'\193') r[#r+1]=e end return r
local r={} for n=3990,4005 do local ok,e=pcall(cmsgpack.unpack,string.rep('\129\145',n)..'\193') r[#r+1]=e end return r
local r={} for n=7990,8005 do local ok,e=pcall(cmsgpack.unpack,string.rep('\129\145',n)..'\193') r[#r+1]=e end return r
local r={} for n=2655,2670 do local ok,e=pcall(cmsgpack.unpack,string.rep('\145\129\1',n)..'\193') r[#r+1]=e end return r
local r={} for n=3990,4005 do local ok,e=pcall(cmsgpack.unpack,string.rep('\145\129\1',n)..'\193') r[#r+1]=e end return r
local r={} for n=7990,8005 do local ok,e=pcall(cmsgpack.unpack,string.rep('\145\129\1',n)..'\193') r[#r+1]=e end return r
