package targetclient

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// origin serves each connection by a script. It is gone when the test ends.
func origin(tb testing.TB, script func(c *net.TCPConn)) (url string, conns *atomic.Int64) {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	conns = &atomic.Int64{}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns.Add(1)
			wg.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
				script(conn.(*net.TCPConn))
			})
		}
	})
	tb.Cleanup(func() { l.Close(); wg.Wait() })
	return "http://" + l.Addr().String(), conns
}

// readRequest reads a header and body bytes of its body; false: there is none.
func readRequest(c net.Conn, body int) bool {
	var got []byte
	one := make([]byte, 1)
	for !bytes.HasSuffix(got, []byte("\r\n\r\n")) {
		if _, err := io.ReadFull(c, one); err != nil {
			return false
		}
		got = append(got, one[0])
	}
	_, err := io.CopyN(io.Discard, c, int64(body))
	return err == nil
}

// untilGone reads until the client closes.
func untilGone(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

// answering writes the same to every request; the connection stays open.
func answering(answer string) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		for readRequest(c, 2) {
			if _, err := io.WriteString(c, answer); err != nil {
				return
			}
		}
	}
}

// closing answers once and closes.
func closing(answer string) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		if readRequest(c, 2) {
			_, _ = io.WriteString(c, answer)
		}
	}
}

func zipped(s string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = io.WriteString(z, s)
	_ = z.Close()
	return b.String()
}

// chunks writes a chunked body.
func chunks(parts ...string) string {
	var b strings.Builder
	for _, p := range parts {
		fmt.Fprintf(&b, "%x\r\n%s\r\n", len(p), p)
	}
	return b.String() + "0\r\n\r\n"
}

const (
	ok200      = "HTTP/1.1 200 OK\r\n"
	chunkedAns = ok200 + "Transfer-Encoding: chunked\r\n\r\n"
)

// originCase is what a target may do, and what a call of it comes to: over our
// own client and over net/http, unless the own one is stricter.
type originCase struct {
	script   func(*net.TCPConn)
	reason   Reason
	status   int
	body     string
	stricter bool // net/http takes it, we do not
	payload  int  // size of the request; 0: two bytes
	// conns, if not 0, is how many connections two calls take.
	conns int64
}

func originCases() map[string]originCase {
	return map[string]originCase{
		"a length":                      {script: answering(ok200 + "Content-Length: 2\r\n\r\n{}"), status: 200, body: "{}", conns: 1},
		"a length of zero":              {script: answering(ok200 + "content-length:0\r\n\r\n"), status: 200, conns: 1},
		"chunks":                        {script: answering(chunkedAns + chunks("{", "}")), status: 200, body: "{}", conns: 1},
		"no chunk":                      {script: answering(chunkedAns + chunks()), status: 200, conns: 1},
		"chunks with extensions":        {script: answering(chunkedAns + "2;a=b;c=\"d\"\r\n{}\r\n0;x\r\n\r\n"), status: 200, body: "{}", conns: 1},
		"chunks with trailers":          {script: answering(chunkedAns + "2\r\n{}\r\n0\r\nA: b\r\nC:d\r\n\r\n"), status: 200, body: "{}", conns: 1},
		"chunk sizes in upper case":     {script: answering(ok200 + "TRANSFER-ENCODING: CHUNKED\r\n\r\n" + "A\r\n0123456789\r\n0\r\n\r\n"), status: 200, body: "0123456789", conns: 1},
		"until the end":                 {script: closing(ok200 + "\r\n{}"), status: 200, body: "{}", conns: 2},
		"nothing until the end":         {script: closing(ok200 + "\r\n"), status: 200, conns: 2},
		"connection: close":             {script: answering(ok200 + "Connection: foo, Close\r\nContent-Length: 2\r\n\r\n{}"), status: 200, body: "{}", conns: 2},
		"connection: close on an error": {script: answering("HTTP/1.1 500 x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"), reason: ReasonFailed, status: 500, conns: 2},
		"HTTP/1.0":                      {script: answering("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}"), status: 200, body: "{}", conns: 2},
		"HTTP/1.0, kept":                {script: answering("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\n{}"), status: 200, body: "{}", conns: 1},
		"HTTP/1.0 until the end":        {script: closing("HTTP/1.0 200 OK\r\n\r\n{}"), status: 200, body: "{}", conns: 2},
		"HTTP/1.0 with chunks":          {script: closing("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks("{}")), status: 200, body: chunks("{}"), stricter: true},
		"no reason":                     {script: answering("HTTP/1.1 200\r\nContent-Length: 2\r\n\r\n{}"), status: 200, body: "{}", conns: 1},
		"blanks before the code":        {script: answering("HTTP/1.1   200 OK\r\nContent-Length: 2\r\n\r\n{}"), status: 200, body: "{}"},
		"no content":                    {script: answering("HTTP/1.1 204 No Content\r\n\r\n"), status: 204, conns: 1},
		"no content, but a length":      {script: answering("HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n{}"), status: 204},
		"not modified":                  {script: answering("HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n"), reason: ReasonFailed, status: 304},
		"another protocol":              {script: closing("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nbytes"), reason: ReasonFailed, status: 101, conns: 2},
		"an error":                      {script: answering("HTTP/1.1 503 Down\r\nContent-Length: 4\r\n\r\ndown"), reason: ReasonFailed, status: 503, conns: 1},
		"an error in chunks":            {script: answering("HTTP/1.1 404 x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks("a", "b")), reason: ReasonFailed, status: 404, conns: 1},
		"an error with a long body":     {script: closing("HTTP/1.1 500 x\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 100000)), reason: ReasonFailed, status: 500, conns: 2},
		"a strange code":                {script: answering("HTTP/1.1 999 x\r\nContent-Length: 0\r\n\r\n"), reason: ReasonFailed, status: 999},
		"continue":                      {script: answering("HTTP/1.1 100 Continue\r\n\r\n" + ok200 + "Content-Length: 2\r\n\r\n{}"), status: 200, body: "{}", conns: 1},
		"early hints":                   {script: answering("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ok200 + "Content-Length: 2\r\n\r\n{}"), status: 200, body: "{}", conns: 1},
		"hundreds of interim answers":   {script: answering(strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 500) + ok200 + "Content-Length: 2\r\n\r\n{}"), status: 200, body: "{}", conns: 1},
		"endless interim answers":       {script: endless("", "HTTP/1.1 102 Processing\r\n\r\n"), reason: ReasonTransport},
		"endless headers":               {script: endless(ok200, "A: b\r\n"), reason: ReasonTransport},
		"an endless header":             {script: endless(ok200+"A: ", "bbbbbbbbbbbbbbbb"), reason: ReasonTransport},
		"an endless first line":         {script: endless("HTTP/1.1 200 ", "OKOKOKOKOKOKOKOK"), reason: ReasonTransport},
		"an endless body":               {script: endless(ok200+"\r\n", "xxxxxxxxxxxxxxxx"), reason: ReasonTransport, status: 200},
		"endless chunks":                {script: endless(chunkedAns, "10\r\n0123456789abcdef\r\n"), reason: ReasonTransport, status: 200},
		"endless trailers":              {script: endless(chunkedAns+"0\r\n", "A: b\r\n"), reason: ReasonTransport, status: 200},
		"an endless chunk extension":    {script: endless(chunkedAns+"1;", "xxxxxxxxxxxx"), reason: ReasonTransport, status: 200},
		"an endless body of an error":   {script: endless("HTTP/1.1 500 x\r\n\r\n", "xxxxxxxxxxxxxxxx"), reason: ReasonFailed, status: 500},
		"large but finite headers":      {script: answering(ok200 + strings.Repeat("Header-Name: "+strings.Repeat("v", 1000)+"\r\n", 500) + "Content-Length: 2\r\n\r\n{}"), status: 200, body: "{}", conns: 1},
		"one large header":              {script: answering(ok200 + "A: " + strings.Repeat("v", 500_000) + "\r\nContent-Length: 2\r\n\r\n{}"), status: 200, body: "{}", conns: 1},
		"bare line feeds":               {script: answering("HTTP/1.1 200 OK\nContent-Length: 2\n\n{}"), status: 200, body: "{}"},
		"bare line feeds in chunks":     {script: closing(chunkedAns + "2\n{}\n0\n\n"), reason: ReasonTransport, status: 200},
		"a folded header":               {script: answering(ok200 + "A: b\r\n  c\r\n\td\r\nContent-Length: 2\r\n\r\n{}"), status: 200, body: "{}"},
		"a folded length":               {script: closing(ok200 + "Content-Length:\r\n 2\r\n\r\n{}"), status: 200, body: "{}", stricter: true},
		"a fold first":                  {script: closing(ok200 + " A: b\r\nContent-Length: 2\r\n\r\n{}"), reason: ReasonTransport},
		"the same length twice":         {script: answering(ok200 + "Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}"), status: 200, body: "{}"},
		"two lengths":                   {script: closing(ok200 + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}x"), reason: ReasonTransport},
		"two lengths in one":            {script: closing(ok200 + "Content-Length: 2, 2\r\n\r\n{}"), reason: ReasonTransport},
		"a length and chunks":           {script: answering(ok200 + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks("{}")), status: 200, body: "{}"},
		"a negative length":             {script: closing(ok200 + "Content-Length: -2\r\n\r\n{}"), reason: ReasonTransport},
		"a length with a sign":          {script: closing(ok200 + "Content-Length: +2\r\n\r\n{}"), reason: ReasonTransport},
		"a length that is none":         {script: closing(ok200 + "Content-Length: two\r\n\r\n{}"), reason: ReasonTransport},
		"an empty length":               {script: closing(ok200 + "Content-Length: \r\n\r\n{}"), reason: ReasonTransport},
		"a huge length":                 {script: closing(ok200 + "Content-Length: 9999999999999999999999\r\n\r\n{}"), reason: ReasonTransport},
		"a length above the limit":      {script: closing(ok200 + "Content-Length: 1000001\r\n\r\n{}"), reason: ReasonTransport, status: 200},
		"another transfer coding":       {script: closing(ok200 + "Transfer-Encoding: gzip, chunked\r\n\r\n" + chunks("{}")), reason: ReasonTransport},
		"identity":                      {script: closing(ok200 + "Transfer-Encoding: identity\r\n\r\n{}"), reason: ReasonTransport},
		"chunked twice":                 {script: closing(ok200 + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks("{}")), reason: ReasonTransport},
		"a trailer that frames":         {script: closing(ok200 + "Transfer-Encoding: chunked\r\nTrailer: Content-Length\r\n\r\n" + chunks("{}")), reason: ReasonTransport},
		"a chunk size that is none":     {script: closing(chunkedAns + "zz\r\n{}\r\n0\r\n\r\n"), reason: ReasonTransport, status: 200},
		"an empty chunk size":           {script: closing(chunkedAns + "\r\n{}\r\n0\r\n\r\n"), reason: ReasonTransport, status: 200},
		"a negative chunk size":         {script: closing(chunkedAns + "-2\r\n{}\r\n0\r\n\r\n"), reason: ReasonTransport, status: 200},
		"a huge chunk size":             {script: closing(chunkedAns + "ffffffffffffffffff\r\n{}\r\n0\r\n\r\n"), reason: ReasonTransport, status: 200},
		"a chunk longer than said":      {script: closing(chunkedAns + "1\r\n{}\r\n0\r\n\r\n"), reason: ReasonTransport, status: 200},
		"chunks of little content":      {script: closing(chunkedAns + strings.Repeat("1;"+strings.Repeat("x", 500)+"\r\na\r\n", 100) + "0\r\n\r\n"), reason: ReasonTransport, status: 200},
		"a body cut off":                {script: closing(ok200 + "Content-Length: 20\r\n\r\n{}"), reason: ReasonTransport, status: 200},
		"a chunk cut off":               {script: closing(chunkedAns + "20\r\n{}"), reason: ReasonTransport, status: 200},
		"chunks without an end":         {script: closing(chunkedAns + "2\r\n{}\r\n"), reason: ReasonTransport, status: 200},
		"no end of the trailer":         {script: closing(chunkedAns + "2\r\n{}\r\n0\r\n"), reason: ReasonTransport, status: 200},
		"a header cut off":              {script: closing(ok200 + "Content-Le"), reason: ReasonTransport},
		"closed at once":                {script: closing(""), reason: ReasonTransport, conns: 2},
		"reset":                         {script: func(c *net.TCPConn) { readRequest(c, 2); _ = c.SetLinger(0) }, reason: ReasonTransport, conns: 2},
		"reset in the body":             {script: resetAfter(ok200 + "Content-Length: 20\r\n\r\n{}"), reason: ReasonTransport, status: 200},
		"half closed after the answer": {script: func(c *net.TCPConn) {
			closing(ok200 + "Content-Length: 2\r\n\r\n{}")(c)
			_ = c.CloseWrite()
			untilGone(c)
		}, status: 200, body: "{}", conns: 2},
		"garbage":                            {script: closing("SSH-2.0-OpenSSH_9.2\r\nsecret\r\n\r\n"), reason: ReasonTransport},
		"bytes":                              {script: closing("\x16\x03\x01\x00\x02\x02\x28\r\n\r\n"), reason: ReasonTransport},
		"HTTP/0.9":                           {script: closing("<html></html>\r\n\r\n"), reason: ReasonTransport},
		"HTTP/2.0 in the first line":         {script: closing("HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\n{}"), status: 200, body: "{}", stricter: true},
		"a code of two digits":               {script: closing("HTTP/1.1 99 x\r\n\r\n"), reason: ReasonTransport},
		"a code of four digits":              {script: closing("HTTP/1.1 2000 x\r\n\r\n"), reason: ReasonTransport},
		"a code with a sign":                 {script: closing("HTTP/1.1 +20 x\r\n\r\n"), reason: ReasonTransport, stricter: true, status: 20},
		"a blank line first":                 {script: closing("\r\n" + ok200 + "Content-Length: 2\r\n\r\n{}"), reason: ReasonTransport},
		"a header without a colon":           {script: closing(ok200 + "secret\r\nContent-Length: 2\r\n\r\n{}"), reason: ReasonTransport},
		"a header without a name":            {script: closing(ok200 + ": secret\r\nContent-Length: 2\r\n\r\n{}"), reason: ReasonTransport},
		"a blank in a header's name":         {script: closing(ok200 + "Content-Length : 2\r\n\r\n{}"), status: 200, body: "{}", stricter: true},
		"a NUL in a header":                  {script: closing(ok200 + "A: secret\x00\r\nContent-Length: 2\r\n\r\n{}"), reason: ReasonTransport},
		"a carriage return in a header":      {script: closing(ok200 + "A: secret\rb\r\nContent-Length: 2\r\n\r\n{}"), reason: ReasonTransport},
		"compressed":                         {script: answering(gzipAnswer(zipped("{}"))), status: 200, body: "{}", conns: 1},
		"compressed in chunks":               {script: answering(ok200 + "Content-Encoding: GZIP\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(zipped("{}")[:7], zipped("{}")[7:])), status: 200, body: "{}", conns: 1},
		"compressed until the end":           {script: closing(ok200 + "Content-Encoding: gzip\r\n\r\n" + zipped("{}")), status: 200, body: "{}"},
		"compressed twice in a row":          {script: answering(gzipAnswer(zipped("{") + zipped("}"))), status: 200, body: "{}", conns: 1},
		"compressed nothing":                 {script: answering(ok200 + "Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks()), status: 200, conns: 1},
		"compressed, length zero":            {script: answering(gzipAnswer("")), status: 200, conns: 1},
		"said to be compressed":              {script: closing(gzipAnswer(`{"secret":1}`)), reason: ReasonTransport, status: 200},
		"compressed and cut off":             {script: closing(gzipAnswer(zipped("{}")[:15])), reason: ReasonTransport, status: 200},
		"compressed with a bad sum":          {script: closing(gzipAnswer(zipped("{}")[:20] + "12345678")), reason: ReasonTransport, status: 200},
		"compressed with something behind":   {script: closing(gzipAnswer(zipped("{}") + "secret secret")), reason: ReasonTransport, status: 200},
		"a bomb":                             {script: closing(gzipAnswer(zipped(strings.Repeat("x", 2_000_000)))), reason: ReasonTransport, status: 200},
		"an error said to be compressed":     {script: answering("HTTP/1.1 500 x\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nxx"), reason: ReasonFailed, status: 500},
		"another content coding":             {script: answering(ok200 + "Content-Encoding: br\r\nContent-Length: 2\r\n\r\n{}"), status: 200, body: "{}", conns: 1},
		"bytes behind the answer":            {script: answering(ok200 + "Content-Length: 2\r\n\r\n{}secret"), status: 200, body: "{}", conns: 2},
		"two answers":                        {script: answering(ok200 + "Content-Length: 2\r\n\r\n{}" + ok200 + "Content-Length: 3\r\n\r\n[1]"), status: 200, body: "{}", conns: 2},
		"a second answer in a while":         {script: secondAnswer, status: 200, body: "{}", conns: 2},
		"an early answer, then closed":       {script: early("HTTP/1.1 413 x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", false), reason: ReasonFailed, status: 413, payload: 300, conns: 2},
		"an early answer to a long request":  {script: early("HTTP/1.1 413 x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", true), reason: ReasonFailed, status: 413, payload: 8 << 20, conns: 2},
		"early, long, 200":                   {script: early(ok200+"Content-Length: 2\r\n\r\n{}", true), status: 200, body: "{}", payload: 8 << 20, conns: 2},
		"a long request":                     {script: longRequest, status: 200, body: "{}", payload: 8 << 20, conns: 1},
		"slow headers":                       {script: slowly(ok200 + "Content-Length: 2\r\n\r\n{}"), reason: ReasonTimeout},
		"a slow body":                        {script: slowBody, reason: ReasonTimeout, status: 200},
		"silence":                            {script: untilGoneTCP, reason: ReasonTimeout},
		"an error with a slow body":          {script: func(c *net.TCPConn) { answering("HTTP/1.1 500 x\r\nContent-Length: 5\r\n\r\nx")(c) }, reason: ReasonFailed, status: 500},
		"a redirect without a usable target": {script: answering("HTTP/1.1 302 x\r\nLocation: http://\r\nContent-Length: 0\r\n\r\n"), reason: ReasonFailed, status: 302, conns: 1},
	}
}

func gzipAnswer(body string) string {
	return fmt.Sprintf("%sContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s", ok200, len(body), body)
}

func untilGoneTCP(c *net.TCPConn) { untilGone(c) }

// endless repeats a part until the client has enough of it.
func endless(start, part string) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		if !readRequest(c, 2) {
			return
		}
		_, err := io.WriteString(c, start)
		for block := strings.Repeat(part, 1000); err == nil; {
			_, err = io.WriteString(c, block)
		}
	}
}

func resetAfter(answer string) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		closing(answer)(c)
		// The client has to have read what came before.
		one := make([]byte, 1)
		_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		_, _ = c.Read(one)
		_ = c.SetLinger(0)
	}
}

func secondAnswer(c *net.TCPConn) {
	closing(ok200 + "Content-Length: 2\r\n\r\n{}")(c)
	_, _ = io.WriteString(c, ok200+"Content-Length: 3\r\n\r\n[1]")
	untilGone(c)
}

// early answers without reading the body, and closes if it does not linger.
func early(answer string, linger bool) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		if readRequest(c, 0) {
			_, _ = io.WriteString(c, answer)
		}
		if linger {
			<-time.After(300 * time.Millisecond)
		}
		_ = c.CloseWrite()
		untilGone(c)
	}
}

func longRequest(c *net.TCPConn) {
	for readRequest(c, 8<<20) {
		_, _ = io.WriteString(c, ok200+"Content-Length: 2\r\n\r\n{}")
	}
}

// slowly writes a byte every 100 ms.
func slowly(answer string) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		if !readRequest(c, 2) {
			return
		}
		for i := range answer {
			if _, err := io.WriteString(c, answer[i:i+1]); err != nil {
				return
			}
			<-time.After(100 * time.Millisecond)
		}
	}
}

func slowBody(c *net.TCPConn) {
	if readRequest(c, 2) {
		_, _ = io.WriteString(c, ok200+"Content-Length: 20\r\n\r\n{")
		untilGone(c)
	}
}

// What targets do comes to the same over our own client and over net/http.
func TestTheOwnClientTakesWhatNetHTTPTakes(t *testing.T) {
	t.Parallel()
	for name, tc := range originCases() {
		for _, over := range []string{"own", "net/http"} {
			t.Run(name+" over "+over, func(t *testing.T) {
				t.Parallel()
				tc := tc
				if over == "own" && tc.stricter {
					tc.reason, tc.status, tc.body = ReasonTransport, 0, ""
				} else if tc.stricter && tc.status < 200 {
					tc.reason = ReasonFailed
				}
				checkOrigin(t, tc, over == "net/http")
			})
		}
	}
}

func checkOrigin(t *testing.T, tc originCase, allHTTP bool) {
	t.Helper()
	c, err := New(Options{MaxResponseBytes: 1_000_000})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.transport.allHTTP = allHTTP
	url, conns := origin(t, tc.script)
	target := &Target{ID: "a", URL: url, Timeout: 5 * time.Second}
	if tc.reason == ReasonTimeout {
		target.Timeout = time.Second
	}
	payload := []byte(strings.Repeat("x", max(tc.payload, 2)))
	calls := 1
	if tc.conns != 0 {
		calls = 2
	}
	for range calls {
		res, err := c.Do(t.Context(), Call{Target: target, Body: payload})
		var e *Error
		reason := Reason(0)
		if errors.As(err, &e) {
			reason = e.Reason
		}
		if reason != tc.reason || res.StatusCode != tc.status || e == nil && string(res.Body) != tc.body {
			t.Errorf("%v, %d %.100q; want %v, %d %q", err, res.StatusCode, res.Body, tc.reason, tc.status, tc.body)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error shows the answer: %v", err)
		}
		if res.Duration > 4*time.Second {
			t.Errorf("took %v", res.Duration)
		}
		if tc.conns == 2 {
			<-time.After(300 * time.Millisecond) // what comes late
		}
	}
	if n := conns.Load(); tc.conns != 0 && n != tc.conns {
		t.Errorf("%d connections for two calls, want %d", n, tc.conns)
	}
}
