import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Enumeration;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;

import javax.jms.*;

import org.apache.qpid.jms.JmsConnectionFactory;

/**
 * Cases for a broker, as a process that test_qpid_jms.py starts once.
 *
 * <p>Each line of standard input is a case, a URL, a name that is the case's alone, and a number:
 * a queue of this name is there. Each is answered by "passed", or by a stack trace and "failed".
 */
public class Cases {
    static final long WAIT = 5000;  // ms for what has to come
    static final long QUIET = 300;  // ms for what has not to come

    private final String url;
    private final String name;
    private final int count;
    private final List<Connection> opened = new ArrayList<>();

    Cases(String url, String name, int count) {
        this.url = url;
        this.name = name;
        this.count = count;
    }

    public static void main(String[] arguments) throws Exception {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] words = line.split(" ");
            Cases cases = new Cases(words[1], words[2], Integer.parseInt(words[3]));
            try {
                Method method = Cases.class.getMethod(words[0]);
                method.invoke(cases);
                cases.close();
                System.out.println("passed");
            } catch (Throwable thrown) {
                cases.close();
                Throwable cause =
                    thrown instanceof InvocationTargetException ? thrown.getCause() : thrown;
                StringWriter trace = new StringWriter();
                cause.printStackTrace(new PrintWriter(trace));
                System.out.println(trace + "failed");
            }
            System.out.flush();
        }
    }

    // --- messages ---

    public void everyKindOfMessageComesAsItWent() throws Exception {
        Session session = session(connect());
        Queue queue = session.createQueue(name);
        MessageProducer producer = session.createProducer(queue);

        TextMessage text = session.createTextMessage("gr\u00fc\u00df \u20ac");
        text.setStringProperty("color", "red");
        text.setIntProperty("int", -7);
        text.setLongProperty("long", Long.MIN_VALUE);
        text.setBooleanProperty("yes", true);
        text.setDoubleProperty("double", 0.1);
        text.setByteProperty("byte", (byte) -1);
        text.setJMSCorrelationID("c-1");
        text.setJMSType("greeting");
        text.setJMSReplyTo(session.createQueue("answers"));
        producer.setPriority(7);
        producer.send(text);
        BytesMessage bytes = session.createBytesMessage();
        bytes.writeBytes(new byte[] {0, 1, (byte) 0xFF});
        producer.send(bytes);
        MapMessage map = session.createMapMessage();
        map.setString("key", "value");
        map.setInt("number", 5);
        producer.send(map);
        StreamMessage stream = session.createStreamMessage();
        stream.writeInt(1);
        stream.writeString("two");
        producer.send(stream);
        producer.send(session.createObjectMessage(new ArrayList<>(Arrays.asList("a", 1L))));
        producer.send(session.createMessage());

        MessageConsumer consumer = session.createConsumer(queue);
        TextMessage gotText = (TextMessage) take(consumer);
        equal("gr\u00fc\u00df \u20ac", gotText.getText());
        equal("red", gotText.getStringProperty("color"));
        equal(-7, gotText.getIntProperty("int"));
        equal(Long.MIN_VALUE, gotText.getLongProperty("long"));
        equal(true, gotText.getBooleanProperty("yes"));
        equal(0.1, gotText.getDoubleProperty("double"));
        equal((byte) -1, gotText.getByteProperty("byte"));
        equal("c-1", gotText.getJMSCorrelationID());
        equal("greeting", gotText.getJMSType());
        equal(7, gotText.getJMSPriority());
        equal(DeliveryMode.PERSISTENT, gotText.getJMSDeliveryMode());
        equal(text.getJMSMessageID(), gotText.getJMSMessageID());
        equal(text.getJMSTimestamp(), gotText.getJMSTimestamp());
        equal(queue, gotText.getJMSDestination());
        equal(session.createQueue("answers"), gotText.getJMSReplyTo());
        equal(false, gotText.getJMSRedelivered());
        BytesMessage gotBytes = (BytesMessage) take(consumer);
        byte[] octets = new byte[(int) gotBytes.getBodyLength()];
        gotBytes.readBytes(octets);
        equal("[0, 1, -1]", Arrays.toString(octets));
        MapMessage gotMap = (MapMessage) take(consumer);
        equal("value", gotMap.getString("key"));
        equal(5, gotMap.getInt("number"));
        StreamMessage gotStream = (StreamMessage) take(consumer);
        equal(1, gotStream.readInt());
        equal("two", gotStream.readString());
        equal(Arrays.asList("a", 1L), ((ObjectMessage) take(consumer)).getObject());
        take(consumer);
        nothing(consumer);
    }

    public void manyMessagesKeepTheirOrder() throws Exception {
        Session session = session(connect());
        MessageProducer producer = session.createProducer(session.createQueue(name));
        producer.setDeliveryMode(DeliveryMode.NON_PERSISTENT);
        CountDownLatch completed = new CountDownLatch(count);
        AtomicReference<Exception> failure = new AtomicReference<>();
        CompletionListener listener = new CompletionListener() {
            public void onCompletion(Message message) {
                completed.countDown();
            }

            public void onException(Message message, Exception exception) {
                failure.set(exception);
                completed.countDown();
            }
        };
        for (int k = 0; k < count; k++) {
            producer.send(session.createTextMessage("m" + k), listener);
        }
        equal(true, completed.await(WAIT, TimeUnit.MILLISECONDS));
        equal(null, failure.get());
        MessageConsumer consumer = session.createConsumer(session.createQueue(name));
        for (int k = 0; k < count; k++) {
            equal("m" + k, textOf(take(consumer)));
        }
        nothing(consumer);
    }

    public void aLongMessageComesWhole() throws Exception {
        Session session = session(connect("amqp.maxFrameSize=512"));
        byte[] octets = new byte[count * 200];
        for (int k = 0; k < octets.length; k++) {
            octets[k] = (byte) (k * 7 % 251);
        }
        BytesMessage message = session.createBytesMessage();
        message.writeBytes(octets);
        session.createProducer(session.createQueue(name)).send(message);
        Message got = take(session.createConsumer(session.createQueue(name)));
        equal(true, Arrays.equals(octets, got.getBody(byte[].class)));
    }

    public void settledBeforeTheyAreSent() throws Exception {
        Session session = session(connect("jms.presettlePolicy.presettleAll=true"));
        MessageProducer producer = session.createProducer(session.createQueue(name));
        for (int k = 0; k < count; k++) {
            producer.send(session.createTextMessage("m" + k));
        }
        MessageConsumer consumer = session.createConsumer(session.createQueue(name));
        for (int k = 0; k < count; k++) {
            equal("m" + k, textOf(take(consumer)));
        }
        nothing(consumer);
    }

    public void aMessageOverItsTimeToLiveIsGone() throws Exception {
        Session session = session(connect());
        MessageProducer producer = session.createProducer(session.createQueue(name));
        producer.setTimeToLive(50);
        producer.send(session.createTextMessage("short"));
        producer.setTimeToLive(0);
        producer.send(session.createTextMessage("long"));
        Thread.sleep(200);
        MessageConsumer consumer = session.createConsumer(session.createQueue(name));
        equal("long", textOf(take(consumer)));
        nothing(consumer);
    }

    public void aListenerGetsMessagesAsTheyCome() throws Exception {
        Session session = session(connect());
        List<String> got = Collections.synchronizedList(new ArrayList<>());
        CountDownLatch all = new CountDownLatch(3);
        session.createConsumer(session.createQueue(name)).setMessageListener(message -> {
            try {
                got.add(textOf(message));
            } catch (JMSException impossible) {
                got.add(impossible.toString());
            }
            all.countDown();
        });
        send("a", "b", "c");
        all.await(WAIT, TimeUnit.MILLISECONDS);
        equal(Arrays.asList("a", "b", "c"), got);
    }

    // --- acknowledgements ---

    public void whatWasNotAcknowledgedComesAgain() throws Exception {
        send("a", "b");
        Connection connection = connect();
        Session session = connection.createSession(Session.CLIENT_ACKNOWLEDGE);
        MessageConsumer consumer = session.createConsumer(session.createQueue(name));
        equal("a", textOf(take(consumer)));
        session.close();
        session = connection.createSession(Session.CLIENT_ACKNOWLEDGE);
        consumer = session.createConsumer(session.createQueue(name));
        Message again = take(consumer);
        equal("a", textOf(again));
        equal(true, again.getJMSRedelivered());
        // It was on its way once more when the session ended.
        equal(true, again.getIntProperty("JMSXDeliveryCount") >= 2);
        Message other = take(consumer);
        equal("b", textOf(other));
        other.acknowledge();
        session.close();
        session = connection.createSession(Session.CLIENT_ACKNOWLEDGE);
        nothing(session.createConsumer(session.createQueue(name)));
    }

    public void recoverRedelivers() throws Exception {
        send("a");
        Session session = connect().createSession(Session.CLIENT_ACKNOWLEDGE);
        MessageConsumer consumer = session.createConsumer(session.createQueue(name));
        equal("a", textOf(take(consumer)));
        session.recover();
        Message again = take(consumer);
        equal("a", textOf(again));
        equal(true, again.getJMSRedelivered());
        again.acknowledge();
        nothing(consumer);
    }

    public void receiveWithoutPrefetchDrains() throws Exception {
        send("a");
        Connection connection = connect("jms.prefetchPolicy.all=0");
        Session session = session(connection);
        MessageConsumer consumer = session.createConsumer(session.createQueue(name));
        equal("a", textOf(consumer.receiveNoWait()));
        equal(null, consumer.receiveNoWait());
        equal(null, consumer.receive(50));
        send("b");
        equal("b", textOf(consumer.receive(WAIT)));
    }

    // --- destinations ---

    public void aProducerWithoutDestinationSendsToAny() throws Exception {
        Session session = session(connect());
        MessageProducer producer = session.createProducer(null);
        producer.send(session.createQueue(name), session.createTextMessage("a"));
        equal("a", textOf(take(session.createConsumer(session.createQueue(name)))));
    }

    public void aServiceAnswersToATemporaryQueue() throws Exception {
        Session service = session(connect());
        MessageConsumer requests = service.createConsumer(service.createQueue(name));
        MessageProducer answers = service.createProducer(null);
        requests.setMessageListener(request -> {
            try {
                TextMessage answer = service.createTextMessage("re: " + textOf(request));
                answer.setJMSCorrelationID(request.getJMSMessageID());
                answers.send(request.getJMSReplyTo(), answer);
            } catch (JMSException error) {
                error.printStackTrace();
            }
        });
        Session session = session(connect());
        TemporaryQueue replyTo = session.createTemporaryQueue();
        MessageConsumer consumer = session.createConsumer(replyTo);
        MessageProducer producer = session.createProducer(session.createQueue(name));
        for (int k = 0; k < 3; k++) {
            TextMessage request = session.createTextMessage("q" + k);
            request.setJMSReplyTo(replyTo);
            producer.send(request);
            Message answer = take(consumer);
            equal("re: q" + k, textOf(answer));
            equal(request.getJMSMessageID(), answer.getJMSCorrelationID());
        }
        consumer.close();
        replyTo.delete();
    }

    public void aTemporaryTopicHasManySubscribers() throws Exception {
        Session session = session(connect());
        TemporaryTopic topic = session.createTemporaryTopic();
        MessageConsumer one = session.createConsumer(topic);
        MessageConsumer other = session.createConsumer(topic);
        session.createProducer(topic).send(session.createTextMessage("a"));
        equal("a", textOf(take(one)));
        equal("a", textOf(take(other)));
    }

    public void everySubscriberOfATopicGetsEachMessage() throws Exception {
        Session session = session(connect());
        Topic topic = session.createTopic(name + ".news");
        MessageConsumer one = session.createConsumer(topic);
        MessageConsumer other = session(connect()).createConsumer(topic);
        MessageConsumer stranger = session.createConsumer(session.createTopic(name + ".olds"));
        MessageProducer producer = session.createProducer(topic);
        producer.send(session.createTextMessage("a"));
        Message got = take(one);
        equal("a", textOf(got));
        equal(topic, got.getJMSDestination());
        equal("a", textOf(take(other)));
        nothing(stranger);
        other.close();
        producer.send(session.createTextMessage("b"));
        equal("b", textOf(take(one)));
    }

    public void aTopicWithoutSubscribersTakesMessages() throws Exception {
        Session session = session(connect());
        Topic topic = session.createTopic(name + ".news");
        session.createProducer(topic).send(session.createTextMessage("nobody hears this"));
        nothing(session.createConsumer(topic));
    }

    public void aBrowserTakesNothing() throws Exception {
        send("a", "b", "c");
        Session session = session(connect());
        for (int k = 0; k < 2; k++) {
            QueueBrowser browser = session.createBrowser(session.createQueue(name));
            List<String> seen = new ArrayList<>();
            Enumeration<?> messages = browser.getEnumeration();
            while (messages.hasMoreElements()) {
                seen.add(textOf((Message) messages.nextElement()));
            }
            browser.close();
            equal(Arrays.asList("a", "b", "c"), seen);
        }
        MessageConsumer consumer = session.createConsumer(session.createQueue(name));
        equal("a", textOf(take(consumer)));
        equal("b", textOf(take(consumer)));
        equal("c", textOf(take(consumer)));
    }

    // --- selectors ---

    public void aSelectorLeavesTheRestForOthers() throws Exception {
        Session session = session(connect());
        Queue queue = session.createQueue(name);
        MessageProducer producer = session.createProducer(queue);
        for (String color : new String[] {"red", "blue", "red", "green"}) {
            TextMessage message = session.createTextMessage(color);
            message.setStringProperty("color", color);
            message.setIntProperty("size", color.length());
            producer.send(message);
        }
        MessageConsumer red = session.createConsumer(queue, "color = 'red' AND size < 4");
        equal("red", textOf(take(red)));
        equal("red", textOf(take(red)));
        nothing(red);
        MessageConsumer long_ = session.createConsumer(queue, "size BETWEEN 5 AND 9");
        equal("green", textOf(take(long_)));
        nothing(long_);
        red.close();
        long_.close();
        equal("blue", textOf(take(session.createConsumer(queue))));
    }

    public void aSelectorSeesTheHeader() throws Exception {
        Session session = session(connect());
        Queue queue = session.createQueue(name);
        MessageProducer producer = session.createProducer(queue);
        TextMessage low = session.createTextMessage("low");
        low.setJMSType("reading");
        producer.send(low, DeliveryMode.PERSISTENT, 1, 0);
        TextMessage high = session.createTextMessage("high");
        high.setJMSType("alarm");
        high.setJMSCorrelationID("c-9");
        producer.send(high, DeliveryMode.PERSISTENT, 8, 0);
        for (String selector : new String[] {
            "JMSPriority > 4", "JMSType = 'alarm'", "JMSCorrelationID LIKE 'c-%'",
            "JMSPriority > 4 AND JMSDeliveryMode = 'PERSISTENT'",
        }) {
            MessageConsumer consumer = connect().createSession(Session.CLIENT_ACKNOWLEDGE)
                .createConsumer(queue, selector);
            equal("high", textOf(take(consumer)));
            nothing(consumer);
            opened.get(opened.size() - 1).close();
        }
    }

    public void aSelectorOfASubscriber() throws Exception {
        Session session = session(connect());
        Topic topic = session.createTopic(name + ".news");
        MessageConsumer red = session.createConsumer(topic, "color = 'red'");
        MessageConsumer all = session.createConsumer(topic);
        MessageProducer producer = session.createProducer(topic);
        for (String color : new String[] {"blue", "red"}) {
            TextMessage message = session.createTextMessage(color);
            message.setStringProperty("color", color);
            producer.send(message);
        }
        equal("red", textOf(take(red)));
        equal("blue", textOf(take(all)));
        equal("red", textOf(take(all)));
        nothing(red);
    }

    // --- durable subscriptions ---

    public void aDurableSubscriberGetsWhatItMissed() throws Exception {
        Connection publishing = connect();
        Session session = session(publishing);
        Topic topic = session.createTopic(name + ".news");
        MessageProducer producer = session.createProducer(topic);

        Connection connection = connectAs("client-" + name);
        Session other = session(connection);
        MessageConsumer subscriber = other.createDurableSubscriber(topic, "sub");
        producer.send(session.createTextMessage("a"));
        equal("a", textOf(take(subscriber)));
        subscriber.close();
        producer.send(session.createTextMessage("b"));
        subscriber = other.createDurableSubscriber(topic, "sub");
        equal("b", textOf(take(subscriber)));
        connection.close();
        producer.send(session.createTextMessage("c"));
        connection = connectAs("client-" + name);
        other = session(connection);
        subscriber = other.createDurableSubscriber(topic, "sub");
        equal("c", textOf(take(subscriber)));
        subscriber.close();
        producer.send(session.createTextMessage("d"));
        other.unsubscribe("sub");
        subscriber = other.createDurableSubscriber(topic, "sub");
        nothing(subscriber);
        producer.send(session.createTextMessage("e"));
        equal("e", textOf(take(subscriber)));
        subscriber.close();
        other.unsubscribe("sub");
    }

    public void anotherSelectorIsAnotherSubscription() throws Exception {
        Session session = session(connectAs("client-" + name));
        Topic topic = session.createTopic(name + ".news");
        MessageProducer producer = session.createProducer(topic);
        session.createDurableSubscriber(topic, "sub", "color = 'red'", false).close();
        for (String color : new String[] {"blue", "red"}) {
            TextMessage message = session.createTextMessage(color);
            message.setStringProperty("color", color);
            producer.send(message);
        }
        MessageConsumer subscriber =
            session.createDurableSubscriber(topic, "sub", "color = 'red'", false);
        equal("red", textOf(take(subscriber)));
        nothing(subscriber);
        subscriber.close();
        TextMessage message = session.createTextMessage("red");
        message.setStringProperty("color", "red");
        producer.send(message);
        subscriber = session.createDurableSubscriber(topic, "sub", "color = 'blue'", false);
        nothing(subscriber);
        subscriber.close();
        session.unsubscribe("sub");
    }

    public void noSubscriptionOfThisNameCanBeRemoved() throws Exception {
        Session session = session(connectAs("client-" + name));
        fails(InvalidDestinationException.class, () -> session.unsubscribe("nothing"));
    }

    public void aSharedSubscriptionIsRefused() throws Exception {
        Session session = session(connectAs("client-" + name));
        Topic topic = session.createTopic(name + ".news");
        fails(JMSException.class, () -> session.createSharedConsumer(topic, "sub"));
        fails(JMSException.class, () -> session.createSharedDurableConsumer(topic, "sub"));
        fails(InvalidDestinationException.class, () -> session.unsubscribe("sub"));
        equal(null, session.createConsumer(topic).receiveNoWait());
    }

    // --- transactions ---

    public void aCommitSendsAndARollbackDoesNot() throws Exception {
        Connection connection = connect();
        Session session = connection.createSession(Session.SESSION_TRANSACTED);
        MessageProducer producer = session.createProducer(session.createQueue(name));
        Session plain = session(connection);
        MessageConsumer consumer = plain.createConsumer(plain.createQueue(name));
        producer.send(session.createTextMessage("a"));
        producer.send(session.createTextMessage("b"));
        nothing(consumer);
        session.commit();
        equal("a", textOf(take(consumer)));
        equal("b", textOf(take(consumer)));
        producer.send(session.createTextMessage("c"));
        session.rollback();
        producer.send(session.createTextMessage("d"));
        session.commit();
        equal("d", textOf(take(consumer)));
        nothing(consumer);
    }

    public void aRollbackGivesBackWhatWasReceived() throws Exception {
        send("a", "b");
        Connection connection = connect();
        Session session = connection.createSession(Session.SESSION_TRANSACTED);
        MessageConsumer consumer = session.createConsumer(session.createQueue(name));
        equal("a", textOf(take(consumer)));
        equal("b", textOf(take(consumer)));
        session.rollback();
        Message again = take(consumer);
        equal("a", textOf(again));
        equal(true, again.getJMSRedelivered());
        session.commit();
        session.close();
        Session plain = session(connection);
        consumer = plain.createConsumer(plain.createQueue(name));
        equal("b", textOf(take(consumer)));
        nothing(consumer);
    }

    public void aTransactionThatIsNotCommittedEndsWithItsSession() throws Exception {
        send("a");
        Connection connection = connect();
        Session session = connection.createSession(Session.SESSION_TRANSACTED);
        MessageConsumer consumer = session.createConsumer(session.createQueue(name));
        equal("a", textOf(take(consumer)));
        session.createProducer(session.createQueue(name)).send(session.createTextMessage("b"));
        connection.close();
        Session plain = session(connect());
        consumer = plain.createConsumer(plain.createQueue(name));
        equal("a", textOf(take(consumer)));
        nothing(consumer);
    }

    // --- refusals ---

    public void aWrongPasswordIsRefused() throws Exception {
        fails(JMSSecurityException.class, () ->
            new JmsConnectionFactory("guest", "wrong", url).createConnection().start());
    }

    // --- one half, the other is another client ---

    public void isCompiled() {}

    /** Answers so many requests. */
    public void service() throws Exception {
        Session session = session(connect());
        MessageConsumer requests = session.createConsumer(session.createQueue(name));
        MessageProducer answers = session.createProducer(null);
        for (int k = 0; k < count; k++) {
            Message request = take(requests);
            BytesMessage answer = session.createBytesMessage();
            answer.writeBytes(request.getBody(byte[].class));
            answer.writeBytes(" is answered".getBytes());
            answer.setJMSCorrelationID(request.getJMSCorrelationID());
            answers.send(request.getJMSReplyTo(), answer);
        }
    }

    /** Asks so many questions. */
    public void client() throws Exception {
        Session session = session(connect());
        TemporaryQueue replyTo = session.createTemporaryQueue();
        MessageConsumer answers = session.createConsumer(replyTo);
        MessageProducer producer = session.createProducer(session.createQueue(name));
        for (int k = 0; k < count; k++) {
            BytesMessage request = session.createBytesMessage();
            request.writeBytes(("q" + k).getBytes());
            request.setJMSCorrelationID("c" + k);
            request.setJMSReplyTo(replyTo);
            request.setStringProperty("color", "red");
            producer.send(request);
            Message answer = take(answers);
            equal("c" + k, answer.getJMSCorrelationID());
            equal("q" + k + " is answered", new String(answer.getBody(byte[].class)));
        }
    }

    // --- help ---

    interface Action {
        void run() throws Exception;
    }

    Connection connect(String... options) throws JMSException {
        String all = options.length == 0 ? "" : "?" + String.join("&", options);
        Connection connection = new JmsConnectionFactory("guest", "guest", url + all)
            .createConnection();
        opened.add(connection);
        connection.start();
        return connection;
    }

    Connection connectAs(String client) throws JMSException {
        return connect("jms.clientID=" + client);
    }

    Session session(Connection connection) throws JMSException {
        return connection.createSession(Session.AUTO_ACKNOWLEDGE);
    }

    /** Texts to the queue, by a connection of their own. */
    void send(String... texts) throws JMSException {
        Connection connection = connect();
        Session session = session(connection);
        MessageProducer producer = session.createProducer(session.createQueue(name));
        for (String text : texts) {
            producer.send(session.createTextMessage(text));
        }
        connection.close();
    }

    static Message take(MessageConsumer consumer) throws JMSException {
        Message message = consumer.receive(WAIT);
        if (message == null) {
            throw new AssertionError("no message within " + WAIT + " ms");
        }
        return message;
    }

    static void nothing(MessageConsumer consumer) throws JMSException {
        Message message = consumer.receive(QUIET);
        if (message != null) {
            throw new AssertionError("a message that nobody waited for: " + message);
        }
    }

    static String textOf(Message message) throws JMSException {
        return message.getBody(String.class);
    }

    static void equal(Object wanted, Object got) {
        if (wanted == null ? got != null : !wanted.equals(got)) {
            throw new AssertionError("wanted " + wanted + ", got " + got);
        }
    }

    static void fails(Class<? extends Exception> kind, Action action) throws Exception {
        try {
            action.run();
        } catch (Exception error) {
            if (kind.isInstance(error)) {
                return;
            }
            throw error;
        }
        throw new AssertionError("no " + kind.getSimpleName());
    }

    void close() {
        for (Connection connection : opened) {
            try {
                connection.close();
            } catch (JMSException ignored) {
                // The case has failed already, or did this itself.
            }
        }
    }
}
