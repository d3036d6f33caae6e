2026-11-23T02:50:02.247Z 943  INFO Restored /tmp/hd/dump.cow keys=3000000 image_bytes=2109771776 read_seconds=0.857093054 verify_seconds=0.167337054
2026-11-23T02:50:02.247Z 943  INFO Ready to accept connections on 127.0.0.1:7656, [::1]:7656 version="0.1.0" pages="thp" maxmemory=6442450944 threads=2
2026-11-23T02:50:02.251Z 943  INFO A signal asks the server to stop
2026-11-23T02:50:02.251Z 943  INFO Bye
