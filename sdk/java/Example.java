import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Executors;

/**
 * A service in Java: POST /complete, /fail and /wait answer 202 and report later. It prints its port.
 * With CRONY_SERVICE it registers as an instance of that service (CRONY_API, CRONY_TOKEN) until it is told to end.
 * With an argument it checks examples of signatures instead: lines of name, secret, timestamp, method, target, run, attempt,
 * fence, callback, body and signature, each in base64 with tabs between; it prints the names of those it takes.
 */
public final class Example {
    public static void main(String[] arguments) throws Exception {
        if (arguments.length > 0) {
            check();
            return;
        }
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
        server.setExecutor(Executors.newCachedThreadPool());
        server.createContext("/", Example::answer);
        server.start();
        System.out.println(server.getAddress().getPort());
        if (System.getenv("CRONY_SERVICE") != null) {
            register(System.getenv("CRONY_SERVICE"), "127.0.0.1:" + server.getAddress().getPort());
        }
    }

    private static void register(String service, String address) throws Exception {
        Registration registration = new Registration(System.getenv("CRONY_API"), System.getenv("CRONY_TOKEN"), service,
            "java", address, "http", "1.0", Duration.ofSeconds(5));
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try {
                registration.close();
            } catch (IOException away) {
                System.err.println(away.getMessage());
            }
        }));
    }

    private static void answer(HttpExchange call) throws IOException {
        int status = 202;
        try {
            byte[] body = call.getRequestBody().readAllBytes();
            List<String> secrets = List.of(System.getenv("CRONY_CALL_SECRETS").split(","));
            String target = call.getRequestURI().toString();
            if (!Crony.verify(call.getRequestHeaders()::getFirst, call.getRequestMethod(), target, body, secrets, Instant.now())) {
                status = 401;
            } else {
                Crony crony = new Crony(call.getRequestHeaders()::getFirst);
                new Thread(() -> work(crony, call.getRequestURI().getPath())).start();
            }
        } catch (Exception wrong) {
            status = 400;
        }
        call.sendResponseHeaders(status, -1);
        call.close();
    }

    private static void work(Crony crony, String path) {
        try {
            crony.alive();
            crony.progress(50, "half way");
            crony.log("a line of Java 日\n");
            if (path.equals("/fail")) {
                crony.fail("the work went wrong", true);
            } else if (path.equals("/wait")) {
                while (!crony.stopped()) {
                    Thread.sleep(20);
                }
                crony.complete("null"); // too late: refused
            } else {
                crony.complete("{\"by\": \"Java\", \"run\": " + Crony.quote(crony.run) + "}");
            }
            System.out.println(crony.run + " done");
        } catch (Exception wrong) {
            System.out.println(crony.run + " " + wrong.getMessage());
        } finally {
            crony.stop();
        }
    }

    private static void check() throws Exception {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            byte[][] parts = new byte[11][];
            String[] text = new String[11];
            for (int i = 0; i < 11; i++) {
                parts[i] = Base64.getDecoder().decode(line.split("\t", -1)[i]);
                text[i] = new String(parts[i], StandardCharsets.UTF_8);
            }
            Map<String, String> header = Map.of("X-Crony-Timestamp", text[2], "X-Crony-Run", text[5],
                "X-Crony-Attempt", text[6], "X-Crony-Fence", text[7], "X-Crony-Callback", text[8], "X-Crony-Signature", text[10]);
            Instant at = Instant.ofEpochSecond(Long.parseLong(text[2]));
            List<String> secrets = List.of("another-" + text[1], text[1]);
            if (Crony.verify(header::get, text[3], text[4], parts[9], secrets, at)
                    && !Crony.verify(header::get, text[3], text[4], parts[9], secrets, at.plusSeconds(301))) {
                System.out.println(text[0]);
            }
        }
    }
}
