import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.time.Duration;
import java.time.Instant;
import java.time.OffsetDateTime;
import java.util.List;
import java.util.function.Function;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/**
 * A client of Crony's callbacks, contract v1: check that a call is genuine, and report about it later.
 * Standard library only, Java 11: copy this file. Registration.java, beside it, is for services that jobs call by name.
 * Safe for use from several threads.
 */
public final class Crony {
    /** How far a call's time may be from ours. */
    public static final Duration WINDOW = Duration.ofMinutes(5);

    /** A final answer of the platform: the status, and for a 409 how the attempt ended. */
    public static final class Refused extends IOException {
        private static final long serialVersionUID = 1;
        public final int status;
        public final String outcome;

        Refused(int status, String answer) {
            super("Crony answered " + status + ": " + member(answer, "detail"));
            this.status = status;
            this.outcome = member(answer, "outcome");
        }
    }

    /** How the attempt stands; cancel: stop working. */
    public static final class Standing {
        public final boolean ended, cancel;
        public final String outcome;

        Standing(String answer) {
            ended = "ended".equals(member(answer, "state"));
            cancel = Pattern.compile("\"cancel\"\\s*:\\s*true").matcher(answer).find();
            outcome = member(answer, "outcome");
        }
    }

    public final String run, attempt;
    private final String callback, token;
    private final Instant deadline;
    private final long interval;
    private final HttpClient client = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(5)).build();
    private volatile boolean stopped;

    /** For the call with these headers. Throws IllegalArgumentException when it wants its answer at once. */
    public Crony(Function<String, String> header) {
        run = header.apply("X-Crony-Run");
        attempt = header.apply("X-Crony-Attempt");
        callback = header.apply("X-Crony-Callback");
        token = header.apply("X-Crony-Token");
        if (run == null || callback == null || token == null) {
            throw new IllegalArgumentException("the call has no callback: is the job async?");
        }
        deadline = OffsetDateTime.parse(header.apply("X-Crony-Deadline")).toInstant();
        String beat = header.apply("X-Crony-Heartbeat");
        interval = beat == null ? 30_000 : Math.max(50, (long) (Double.parseDouble(beat) * 1000 / 3));
    }

    /** The value of X-Crony-Signature. The target is path and query exactly as sent. */
    public static String sign(String secret, String timestamp, String method, String target, String run, String attempt,
            String fence, String callback, byte[] body) throws GeneralSecurityException {
        String digest = hex(MessageDigest.getInstance("SHA-256").digest(body));
        String text = String.join("\n", "v1", timestamp, method.toUpperCase(), target, run, attempt, fence, callback, digest);
        Mac mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(secret.getBytes(StandardCharsets.UTF_8), "HmacSHA256"));
        return "v1=" + hex(mac.doFinal(text.getBytes(StandardCharsets.UTF_8)));
    }

    /**
     * Whether one of the secrets signed exactly this call within WINDOW of now.
     * A copy within the window passes: refuse a run and attempt that you have had.
     */
    public static boolean verify(Function<String, String> header, String method, String target, byte[] body,
            List<String> secrets, Instant now) throws GeneralSecurityException {
        String stamp = header.apply("X-Crony-Timestamp"), given = header.apply("X-Crony-Signature");
        if (stamp == null || given == null || !stamp.matches("[0-9]{1,12}")) {
            return false;
        }
        boolean genuine = false;
        for (String secret : secrets) { // each is tried, so that the time taken says nothing
            if (secret.length() < 32) {
                throw new IllegalArgumentException("a secret is shorter than 32 characters");
            }
            String callback = header.apply("X-Crony-Callback");
            String made = sign(secret, stamp, method, target, header.apply("X-Crony-Run"), header.apply("X-Crony-Attempt"),
                    header.apply("X-Crony-Fence"), callback == null ? "" : callback, body);
            genuine |= MessageDigest.isEqual(made.getBytes(StandardCharsets.UTF_8), given.getBytes(StandardCharsets.UTF_8));
        }
        return genuine && Math.abs(now.getEpochSecond() - Long.parseLong(stamp)) <= WINDOW.getSeconds();
    }

    /** Say once that the work is alive. */
    public Standing heartbeat() throws IOException, InterruptedException {
        return once("heartbeat", "{}");
    }

    /** How far it is: 0 to 100, and a few words. */
    public Standing progress(double percent, String message) throws IOException, InterruptedException {
        return once("progress", "{\"percent\": " + percent + ", \"message\": " + quote(message) + "}");
    }

    /** Append text, at most 64 KiB, to the attempt's output. */
    public Standing log(String text) throws IOException, InterruptedException {
        return surely("log", "{\"text\": " + quote(text) + "}");
    }

    /** The attempt has succeeded; the result is JSON. Repeated over outages until the deadline; Refused is final. */
    public Standing complete(String json) throws IOException, InterruptedException {
        return surely("complete", "{\"result\": " + json + "}");
    }

    /** The attempt has failed; isFinal asks for no further one. Otherwise as complete. */
    public Standing fail(String reason, boolean isFinal) throws IOException, InterruptedException {
        return surely("fail", "{\"reason\": " + quote(reason) + ", \"final\": " + isFinal + "}");
    }

    /** Send heartbeats in the background, until stop(). */
    public Crony alive() {
        Thread thread = new Thread(() -> {
            while (!stopped) {
                try {
                    Standing standing = heartbeat();
                    stopped |= standing.cancel || standing.ended;
                    Thread.sleep(stopped ? 0 : interval);
                } catch (Refused | InterruptedException over) {
                    stopped = true;
                } catch (IOException away) {
                    pause(Math.min(interval, 2000));
                }
            }
        }, "crony-heartbeat");
        thread.setDaemon(true);
        thread.start();
        return this;
    }

    /** No more heartbeats. */
    public void stop() {
        stopped = true;
    }

    /** Whether the work should stop: it was cancelled, or the attempt has ended. */
    public boolean stopped() {
        return stopped;
    }

    private Standing surely(String verb, String body) throws IOException, InterruptedException {
        for (long pause = 300;; pause = Math.min(2 * pause, 5000)) {
            try {
                return once(verb, body);
            } catch (Refused over) {
                throw over;
            } catch (IOException away) {
                if (Instant.now().plusMillis(pause).isAfter(deadline)) {
                    throw away;
                }
                Thread.sleep(pause);
            }
        }
    }

    private Standing once(String verb, String body) throws IOException, InterruptedException {
        return new Standing(post(client, callback + ":" + verb, token, body));
    }

    /** One call: what was answered; Refused for what would be refused again, IOException for what may be repeated. */
    static String post(HttpClient client, String url, String token, String body) throws IOException, InterruptedException {
        HttpRequest request = HttpRequest.newBuilder(URI.create(url)).timeout(Duration.ofSeconds(20))
            .version(HttpClient.Version.HTTP_1_1)
            .header("Authorization", "Bearer " + token).header("Content-Type", "application/json")
            .POST(HttpRequest.BodyPublishers.ofString(body)).build();
        HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
        boolean json = answer.headers().firstValue("Content-Type").orElse("").contains("json");
        int status = answer.statusCode();
        if (status == 204 || status >= 200 && status < 300 && json) {
            return answer.body();
        }
        if (status >= 400 && status < 500 && status != 429 && json) { // an error page of a proxy was not said by Crony
            throw new Refused(status, answer.body());
        }
        throw new IOException("Crony answered " + status);
    }

    private static void pause(long millis) {
        try {
            Thread.sleep(millis);
        } catch (InterruptedException over) {
            Thread.currentThread().interrupt();
        }
    }

    static String member(String answer, String name) {
        Matcher found = Pattern.compile('"' + name + "\"\\s*:\\s*\"((?:[^\"\\\\]|\\\\.)*)\"").matcher(answer);
        return found.find() ? found.group(1) : "";
    }

    private static String hex(byte[] bytes) {
        StringBuilder text = new StringBuilder();
        for (byte each : bytes) {
            text.append(String.format("%02x", each));
        }
        return text.toString();
    }

    /** Text as JSON. */
    public static String quote(String text) {
        StringBuilder json = new StringBuilder("\"");
        text.chars().forEach(c -> json.append(c < 32 || c == '"' || c == '\\' || Character.isSurrogate((char) c)
            ? String.format("\\u%04x", c) : String.valueOf((char) c)));
        return json.append('"').toString();
    }
}
